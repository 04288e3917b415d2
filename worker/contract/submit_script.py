"""The script that takes a job: whether there is room, its record and its first chunks in RQ, all or nothing.

It does in one round trip what a caller could do in ten, and no job can slip between looking and taking.
What depends on the workers there are (chunk size, chunks in line) is decided by the caller before, from the
fleet as it last saw it; should that have changed, nothing is done and the caller is told.
"""

from typing import Final

from worker.contract.chunk_records import FIXED_FIELDS, JOB_PREFIX
from worker.contract.ledger_scripts import CREATE_JOB

FLEET_FRESH_S: Final = 1.0
"""For so long the workers are not looked at one by one again, unless one came or went."""

# `fleet(now)` returns what the live workers are together: `{number} {slowest} {all}`, images per second, and
# the number. KEYS: 2 is the workers, 3 the sum kept of them. ARGV: 3 is a worker's timeout.
_FLEET: Final = f"""
local function fleet(now)
  local count = redis.call('HLEN', KEYS[2])
  local kept = redis.call('HMGET', KEYS[3], 'at', 'count', 'sum', 'live')
  if kept[1] and tonumber(kept[2]) == count and tonumber(kept[4]) > 0 then
    local age = now - tonumber(kept[1])
    if age >= 0 and age < {FLEET_FRESH_S} then return kept[3], tonumber(kept[4]) end
  end
  local live, slowest, all = 0, 0, 0
  for _, row in ipairs(redis.call('HVALS', KEYS[2])) do
    local is_read, worker = pcall(cjson.decode, row)
    if is_read and type(worker) == 'table' and type(worker.heartbeat) == 'number'
        and now - worker.heartbeat < tonumber(ARGV[3])
        and type(worker.state) == 'string' and worker.state ~= 'stopping' then
      live = live + 1
      local speed = worker.images_per_second
      if type(speed) == 'number' and speed > 0 then
        all = all + speed
        if slowest == 0 or speed < slowest then slowest = speed end
      end
    end
  end
  local sum = string.format('%d %.17g %.17g', live, slowest, all)
  redis.call('HSET', KEYS[3], 'at', now, 'count', count, 'sum', sum, 'live', live)
  redis.call('EXPIRE', KEYS[3], 5)
  return sum, live
end
"""

# `image_bytes(label, guess)`: of one stored image, as measured. KEYS: 4 is the counters.
_ROOM: Final = """
local function image_bytes(label, guess)
  local row = redis.call('HMGET', KEYS[4], 'image_bytes:' .. label, 'images_stored:' .. label)
  if row[1] and row[2] then return tonumber(row[1]) / tonumber(row[2]) end
  return guess
end
"""

# KEYS: draining, workers, fleet, counters, active jobs, RQ's set of queues, RQ's list of chunks, webhook,
# then as of `create_job`. Of RQ's records of chunks the keys follow from their ids.
# ARGV: 1 job id, 2 now, 3 worker timeout, 4 fleet, as the caller knows it, 5 images, 6 their label,
# 7 most images that may wait, 8 room in bytes ('' for not known), 9 most bytes of all results (0 for any),
# 10 bytes of an image of its own, 11 of another, while none was measured, 12 whether it may go ahead (0/1),
# 13 most jobs that go ahead, 14 expiry, 15 events limit, 16 name of the counter, 17 the spec of one that goes
# ahead ('' for the same), 18 webhook's seconds to live, 19 number of webhook items, 20 number of job items,
# 21 moment as RQ spells it; then these items, and of each chunk: RQ id, data, description. The second of the
# job items' pairs is its spec.
# Returns {'taken', place in the line, went ahead (0/1)}; or, having changed nothing, {'known'}, {'draining'},
# {'fleet', fleet}, {'none'} for no worker, {'queue', waiting, images/s}, {'disk', expected, missing} and
# {'limit', expected, unfinished} in bytes.
SUBMIT: Final = (
    CREATE_JOB
    + _FLEET
    + _ROOM
    + f"local rq_prefix = '{JOB_PREFIX}'\n"
    + f"local rq_fields = {{{', '.join(repr(str(item)) for item in FIXED_FIELDS)}}}\n"
    + """
if redis.call('EXISTS', KEYS[9]) == 1 then return {'known'} end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'draining'} end
local now, n = tonumber(ARGV[2]), tonumber(ARGV[5])
local sum, live = fleet(now)
if live == 0 then return {'none'} end
if sum ~= ARGV[4] then return {'fleet', sum} end

local expected = n * image_bytes(ARGV[6], tonumber(ARGV[10]))
local waiting, missing, unfinished, ahead = 0, expected, expected, 0
local load = redis.call('HGETALL', KEYS[12])
for i = 1, #load, 2 do
  local kind, count = string.sub(load[i], 1, 6), tonumber(load[i + 1])
  if kind == 'waitin' then
    waiting = waiting + count
    missing = missing + count * image_bytes(string.sub(load[i], 9), tonumber(ARGV[11]))
  elseif kind == 'total:' then
    unfinished = unfinished + count * image_bytes(string.sub(load[i], 7), tonumber(ARGV[11]))
  else
    ahead = count
  end
end
if waiting > 0 and waiting + n > tonumber(ARGV[7]) then
  return {'queue', tostring(waiting), string.match(sum, '%S+$')}
end
if ARGV[8] ~= '' and missing > tonumber(ARGV[8]) then
  return {'disk', tostring(expected), tostring(missing)}
end
if tonumber(ARGV[9]) > 0 and unfinished > tonumber(ARGV[9]) then
  return {'limit', tostring(expected), tostring(unfinished)}
end

local goes_ahead = ARGV[12] == '1' and ahead < tonumber(ARGV[13])
local at = 22
local function take(count)
  at = at + tonumber(count)
  return {unpack(ARGV, at - tonumber(count), at - 1)}
end
local webhook, fields = take(ARGV[19]), take(ARGV[20])
if #webhook > 0 then
  redis.call('HSET', KEYS[8], unpack(webhook))
  redis.call('EXPIRE', KEYS[8], ARGV[18])
end
if goes_ahead then fields[4] = ARGV[17] end
redis.call('ZADD', KEYS[5], ARGV[2], ARGV[1])
create_job(9, ARGV[1], ARGV[2], ARGV[14], ARGV[15], ARGV[6], goes_ahead, fields)
redis.call('HINCRBY', KEYS[4], ARGV[16], 1)

redis.call('SADD', KEYS[6], KEYS[7])
local ids, length = {}, 0
while at < #ARGV do
  local chunk = take(3)
  redis.call('HSET', rq_prefix .. chunk[1], 'data', chunk[2], 'description', chunk[3],
    'created_at', ARGV[21], 'enqueued_at', ARGV[21], unpack(rq_fields))
  ids[#ids + 1] = chunk[1]
end
if goes_ahead then
  for i = #ids, 1, -1 do redis.call('LPUSH', KEYS[7], ids[i]) end
  return {'taken', 1, 1}
end
for _, id in ipairs(ids) do length = redis.call('RPUSH', KEYS[7], id) end
return {'taken', length - #ids + 1, 0}
"""
)

# A job and its place in the line, for who looks at it. KEYS: job, done, RQ's list of chunks. ARGV: job id.
# Returns {its hash as JSON or '', place or 0}. The first chunk that is missing is the one that is waited for.
LOOK: Final = """
local rows = redis.call('HGETALL', KEYS[1])
if #rows == 0 then return {'', 0} end
local job = {}
for i = 1, #rows, 2 do job[rows[i]] = rows[i + 1] end
local place
if job.status == 'queued' then
  local first = 0
  while job.done ~= '0' and first < tonumber(job.next_chunk)
      and redis.call('HEXISTS', KEYS[2], first) == 1 do first = first + 1 end
  if first == tonumber(job.next_chunk) then first = 0 end
  place = redis.call('LPOS', KEYS[3], ARGV[1] .. '-' .. first .. '-' .. job.attempt)
end
return {cjson.encode(job), place and place + 1 or 0}
"""
