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

# `fleet(now, timeout)` returns what the live workers are together: `{number} {slowest} {all}`, images per
# second, and the number. KEYS: 2 is the workers, 3 the sum kept of them. timeout: of a worker, seconds.
_FLEET: Final = f"""
local function fleet(now, timeout)
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
        and now - worker.heartbeat < timeout
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
# `refusal(asked, sum, load)`: why images are not to be made now, nil if they are; and how many jobs went
# ahead of the others. sum: of the fleet. load: key of what unfinished jobs ask for. asked: n, images to be
# made; total, of their job; label; most_waiting; room in bytes (null for not known); most_bytes of all
# results (0 for any); own_bytes of one of its images and other_bytes of another while none was measured.
_ADMISSION: Final = """
local function image_bytes(label, guess)
  local row = redis.call('HMGET', KEYS[4], 'image_bytes:' .. label, 'images_stored:' .. label)
  if row[1] and row[2] then return tonumber(row[1]) / tonumber(row[2]) end
  return guess
end
local function refusal(asked, sum, load)
  local size = image_bytes(asked.label, asked.own_bytes)
  local expected = asked.n * size
  local waiting, missing, unfinished, ahead = 0, expected, asked.total * size, 0
  local sums = redis.call('HGETALL', load)
  for i = 1, #sums, 2 do
    local kind, count = string.sub(sums[i], 1, 6), tonumber(sums[i + 1])
    if kind == 'waitin' then
      waiting = waiting + count
      missing = missing + count * image_bytes(string.sub(sums[i], 9), asked.other_bytes)
    elseif kind == 'total:' then
      unfinished = unfinished + count * image_bytes(string.sub(sums[i], 7), asked.other_bytes)
    else
      ahead = count
    end
  end
  if waiting > 0 and waiting + asked.n > asked.most_waiting then
    return {'queue', tostring(waiting), string.match(sum, '%S+$')}, ahead
  end
  if asked.room ~= cjson.null and missing > asked.room then
    return {'disk', tostring(expected), tostring(missing)}, ahead
  end
  if asked.most_bytes > 0 and unfinished > asked.most_bytes then
    return {'limit', tostring(expected), tostring(unfinished)}, ahead
  end
  return nil, ahead
end
"""

# Whether the rest of a job that is there would be taken now; changes nothing. KEYS: load, workers, fleet,
# counters. ARGV: JSON of now, worker_timeout and what `refusal` is asked. Returns {'room', fleet}, {'none'}
# for no worker, or why not as SUBMIT does.
ADMIT: Final = (
    _FLEET
    + _ADMISSION
    + """
local asked = cjson.decode(ARGV[1])
local sum, live = fleet(tonumber(asked.now), asked.worker_timeout)
if live == 0 then return {'none'} end
return refusal(asked, sum, KEYS[1]) or {'room', sum}
"""
)

# KEYS: draining, workers, fleet, counters, active jobs, RQ's set of queues, RQ's list of chunks, webhook,
# then as of `create_job`. Of RQ's records of chunks the keys follow from their ids.
# ARGV: 1 JSON of what is named below, 2 the job's spec as one that waits in line, then of each chunk: RQ id,
# data. JSON: id, now, worker_timeout, fleet as the caller knows it, what `refusal` is asked, most_ahead: jobs
# that may go ahead of the others if this one does (0 for one that may not), expires_at, most_events, counter,
# webhook_ttl, webhook and fields (both flat), moment as RQ spells it.
# Returns {'taken', place in the line, went ahead (0/1)}; or, having changed nothing, {'known'}, {'draining'},
# {'fleet', fleet}, {'none'} for no worker, {'queue', waiting, images/s}, {'disk', expected, missing} and
# {'limit', expected, unfinished} in bytes.
SUBMIT: Final = (
    CREATE_JOB
    + _FLEET
    + _ADMISSION
    + f"local rq_prefix = '{JOB_PREFIX}'\n"
    + f"local rq_fields = {{{', '.join(repr(str(item)) for item in FIXED_FIELDS)}}}\n"
    + """
if redis.call('EXISTS', KEYS[9]) == 1 then return {'known'} end
if redis.call('EXISTS', KEYS[1]) == 1 then return {'draining'} end
local asked = cjson.decode(ARGV[1])
local now = tonumber(asked.now)
local sum, live = fleet(now, asked.worker_timeout)
if live == 0 then return {'none'} end
if sum ~= asked.fleet then return {'fleet', sum} end

local why_not, ahead = refusal(asked, sum, KEYS[12])
if why_not then return why_not end

local goes_ahead = ahead < asked.most_ahead
if #asked.webhook > 0 then
  redis.call('HSET', KEYS[8], unpack(asked.webhook))
  redis.call('EXPIRE', KEYS[8], asked.webhook_ttl)
end
local fields = asked.fields
fields[#fields + 1] = 'spec'
fields[#fields + 1] = goes_ahead and string.gsub(ARGV[2], '"at_front":false', '"at_front":true', 1) or ARGV[2]
redis.call('ZADD', KEYS[5], asked.now, asked.id)
create_job(9, asked.id, asked.now, asked.expires_at, asked.most_events, asked.label, goes_ahead, fields)
redis.call('HINCRBY', KEYS[4], asked.counter, 1)

redis.call('SADD', KEYS[6], KEYS[7])
local ids, length = {}, 0
for i = 3, #ARGV, 2 do
  redis.call('HSET', rq_prefix .. ARGV[i], 'data', ARGV[i + 1], 'created_at', asked.moment,
    'enqueued_at', asked.moment, unpack(rq_fields))
  ids[#ids + 1] = ARGV[i]
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
