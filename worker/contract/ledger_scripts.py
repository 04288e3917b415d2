"""The Lua that changes a job's state in Redis; ledger.py says what each of them is for."""

from typing import Final

from worker.contract.load import LOAD
from worker.contract.tallies import TALLY, UNSTORE
from worker.contract.webhook_ledger import ANNOUNCE, AWAIT_AGAIN

# Scripts that begin with it call `create_job(first, id, now, expires_at, events_limit, label, at_front,
# fields)`: KEYS from `first` on are job, events, expiry index, load, then the indexes that list it. fields:
# its hash, flat.
CREATE_JOB: Final = (
    LOAD
    + """
local function create_job(first, id, now, expires_at, events_limit, label, at_front, fields)
  local job = KEYS[first]
  redis.call('HSET', job, unpack(fields))
  redis.call('ZADD', KEYS[first + 2], expires_at, id)
  for i = first + 4, #KEYS do redis.call('ZADD', KEYS[i], now, id) end
  redis.call('XADD', KEYS[first + 1], 'MAXLEN', '~', events_limit, '*', 'event', 'status',
    'data', '{"status":"queued"}')
  load_begin(job, KEYS[first + 3], label, at_front)
end
"""
)

# KEYS: job, events, counters, webhook, webhooks due, load. ARGV: now, events limit. Returns the job's status
# after the call ('' if unknown).
START: Final = (
    ANNOUNCE
    + LOAD
    + TALLY
    + """
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return '' end
local deadline = tonumber(redis.call('HGET', KEYS[1], 'deadline') or '')
if (status == 'queued' or status == 'running') and deadline and tonumber(ARGV[1]) >= deadline then
  load_end(KEYS[1], KEYS[6])
  redis.call('HSET', KEYS[1], 'status', 'expired', 'finished_at', ARGV[1])
  redis.call('HINCRBY', KEYS[3], 'jobs:expired:' .. redis.call('HGET', KEYS[1], 'class'), 1)
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'event', 'done', 'data', '{"status":"expired"}')
  announce(KEYS[4], KEYS[5], 'expired', ARGV[1])
  return 'expired'
end
if status == 'queued' then
  redis.call('HSET', KEYS[1], 'status', 'running', 'started_at', ARGV[1])
  observe(KEYS[1], KEYS[3], 'queue_wait', ARGV[1])
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], '*', 'event', 'status', 'data', '{"status":"running"}')
  return 'running'
end
return status
"""
)

# KEYS: job, done, events, counters, webhook, webhooks due, load. ARGV: chunk index, result JSON, count,
# rejected, now, events limit, class slug, model reference, stored bytes, then pairs of rejection reason and
# count. Returns {first (0/1), status, next chunk or -1}. A chunk that comes after its job's files were
# deleted changes nothing.
FINISH_CHUNK: Final = (
    ANNOUNCE
    + LOAD
    + TALLY
    + """
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {0, '', -1} end
if redis.call('HEXISTS', KEYS[1], 'collecting') == 1 or redis.call('HEXISTS', KEYS[1], 'collected') == 1 then
  return {0, status, -1}
end
if redis.call('HSETNX', KEYS[2], ARGV[1], ARGV[2]) == 0 then
  redis.call('HINCRBY', KEYS[4], 'chunks:duplicate', 1)
  return {0, status, -1}
end
local done = redis.call('HINCRBY', KEYS[1], 'done', ARGV[3])
load_made(KEYS[1], KEYS[7], ARGV[3])
local rejected = redis.call('HINCRBY', KEYS[1], 'rejected', ARGV[4])
local chunks_done = redis.call('HINCRBY', KEYS[1], 'chunks_done', 1)
redis.call('HINCRBY', KEYS[4], 'images:' .. ARGV[7] .. ':' .. ARGV[8], ARGV[3])
store(KEYS[1], KEYS[4], ARGV[9], ARGV[3], ARGV[8])
if chunks_done == 1 then observe(KEYS[1], KEYS[4], 'first_image', ARGV[5]) end
for i = 10, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[4], 'rejected:' .. ARGV[7] .. ':' .. ARGV[i], ARGV[i + 1])
end
redis.call('HINCRBY', KEYS[4], 'chunks:done', 1)
local total = tonumber(redis.call('HGET', KEYS[1], 'total'))
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'event', 'shard', 'data', ARGV[2])
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'event', 'progress', 'data',
  '{"done":' .. done .. ',"rejected":' .. rejected .. ',"total":' .. total .. '}')
if status == 'queued' or status == 'running' then
  local chunk_count = tonumber(redis.call('HGET', KEYS[1], 'chunk_count'))
  if chunks_done == chunk_count then
    load_end(KEYS[1], KEYS[7])
    redis.call('HSET', KEYS[1], 'status', 'succeeded', 'finished_at', ARGV[5])
    observe(KEYS[1], KEYS[4], 'duration', ARGV[5])
    redis.call('HINCRBY', KEYS[4], 'jobs:succeeded:' .. redis.call('HGET', KEYS[1], 'class'), 1)
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*', 'event', 'done',
      'data', '{"status":"succeeded"}')
    announce(KEYS[5], KEYS[6], 'succeeded', ARGV[5])
    return {1, 'succeeded', -1}
  end
  local next_chunk = tonumber(redis.call('HGET', KEYS[1], 'next_chunk'))
  while next_chunk < chunk_count and redis.call('HEXISTS', KEYS[2], next_chunk) == 1 do
    next_chunk = next_chunk + 1  -- made before a retry
  end
  if next_chunk < chunk_count then
    redis.call('HSET', KEYS[1], 'next_chunk', next_chunk + 1)
    return {1, status, next_chunk}
  end
  redis.call('HSET', KEYS[1], 'next_chunk', next_chunk)
end
return {1, status, -1}
"""
)

# KEYS: job, events, counters, webhook, webhooks due, load. ARGV: new status, now, error JSON, events limit,
# allowed old statuses... Returns the job's status after the call ('' if unknown); the change happens only
# from an allowed status.
TRANSITION: Final = (
    ANNOUNCE
    + LOAD
    + """
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return '' end
for i = 5, #ARGV do
  if status == ARGV[i] then
    redis.call('HSET', KEYS[1], 'status', ARGV[1], 'error', ARGV[3])
    local final = ARGV[1] ~= 'canceling'
    if final then
      load_end(KEYS[1], KEYS[6])
      redis.call('HSET', KEYS[1], 'finished_at', ARGV[2])
      redis.call('HINCRBY', KEYS[3], 'jobs:' .. ARGV[1] .. ':' .. redis.call('HGET', KEYS[1], 'class'), 1)
      announce(KEYS[4], KEYS[5], ARGV[1], ARGV[2])
    end
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'event', final and 'done' or 'status',
      'data', '{"status":"' .. ARGV[1] .. '"}')
    return ARGV[1]
  end
end
return status
"""
)

# KEYS: job, done, events, counters, webhook, webhooks due, losses, expiry index, load, then the indexes that
# list it. ARGV: job id, now, new expiry, window, events limit, new deadline ('' for none), webhook's seconds
# to live, its images' label, whether it goes ahead (0/1). Returns {0, status} if it cannot be retried, else
# {1, status, attempt, chunk indices to enqueue now...}. A job that had all its chunks when it was canceled
# needs none.
RETRY: Final = (
    ANNOUNCE
    + AWAIT_AGAIN
    + LOAD
    + """
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {0, ''} end
if status ~= 'failed' and status ~= 'canceled' and status ~= 'expired' then return {0, status} end
if redis.call('HEXISTS', KEYS[1], 'collecting') == 1 or redis.call('HEXISTS', KEYS[1], 'deleted') == 1 then
  return {0, status}
end
local chunk_count = tonumber(redis.call('HGET', KEYS[1], 'chunk_count'))
local attempt = redis.call('HINCRBY', KEYS[1], 'attempt', 1)
local answer, next_chunk = {1, 'queued', attempt}, 0
while next_chunk < chunk_count and #answer - 3 < tonumber(ARGV[4]) do
  if redis.call('HEXISTS', KEYS[2], next_chunk) == 0 then answer[#answer + 1] = next_chunk end
  next_chunk = next_chunk + 1
end
redis.call('HSET', KEYS[1], 'status', 'queued', 'next_chunk', next_chunk, 'expires_at', ARGV[3], 'error', '',
  'deadline', ARGV[6])
redis.call('HDEL', KEYS[1], 'started_at', 'finished_at', 'collected', 'made_room')
redis.call('DEL', KEYS[7])
for i = 1, 3 do redis.call('PERSIST', KEYS[i]) end
redis.call('ZADD', KEYS[8], ARGV[3], ARGV[1])
for i = 10, #KEYS do redis.call('ZADD', KEYS[i], redis.call('HGET', KEYS[1], 'created_at'), ARGV[1]) end
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'event', 'status', 'data', '{"status":"queued"}')
await_again(KEYS[5], KEYS[6], ARGV[7])
if redis.call('HLEN', KEYS[2]) == chunk_count then
  answer[2] = 'succeeded'
  redis.call('HSET', KEYS[1], 'status', 'succeeded', 'started_at', ARGV[2], 'finished_at', ARGV[2])
  redis.call('HINCRBY', KEYS[4], 'jobs:succeeded:' .. redis.call('HGET', KEYS[1], 'class'), 1)
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'event', 'done', 'data', '{"status":"succeeded"}')
  announce(KEYS[5], KEYS[6], 'succeeded', ARGV[2])
else
  load_begin(KEYS[1], KEYS[9], ARGV[8], ARGV[9] == '1')
end
return answer
"""
)

# KEYS: job, expiry index. ARGV: job id, now. Returns 1 if the job is there.
DELETE: Final = """
local expires_at = redis.call('HGET', KEYS[1], 'expires_at')
if not expires_at then return 0 end
if redis.call('HSETNX', KEYS[1], 'deleted', ARGV[2]) == 1 and tonumber(expires_at) > tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'expires_at', ARGV[2])
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
end
return 1
"""

# KEYS: job, expiry index. ARGV: job id, now. Returns the bytes that a finished job, which expires now, will
# free; 0 for any other.
EXPIRE_EARLY: Final = """
local status = redis.call('HGET', KEYS[1], 'status')
if not status or status == 'queued' or status == 'running' or status == 'canceling' then return 0 end
local bytes = tonumber(redis.call('HGET', KEYS[1], 'stored_bytes') or 0)
if bytes > 0 and tonumber(redis.call('HGET', KEYS[1], 'expires_at')) > tonumber(ARGV[2]) then
  redis.call('HSET', KEYS[1], 'expires_at', ARGV[2], 'made_room', 1)
  redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
end
return bytes
"""

# KEYS: job, done, expiry index, counters. ARGV: job id, now. Returns 1 if the job's files are to be deleted
# now. From here on it has no chunks, whatever happens to its files, and it cannot be retried before it is
# forgotten.
COLLECT: Final = (
    UNSTORE
    + """
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return 1 end
if status == 'queued' or status == 'running' or status == 'canceling' then return 0 end
local expires_at = redis.call('HGET', KEYS[1], 'expires_at')
if tonumber(expires_at) > tonumber(ARGV[2]) then
  redis.call('ZADD', KEYS[3], expires_at, ARGV[1])
  return 0
end
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'collecting', ARGV[2], 'done', 0, 'rejected', 0, 'chunks_done', 0)
unstore(KEYS[1], KEYS[4])
return 1
"""
)
