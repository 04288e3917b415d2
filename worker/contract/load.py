"""What the jobs that have not ended still ask for: kept as sums, so that admitting one reads no other.

The sums change in the same script as the state of the job they belong to, so that they are exact whoever
dies. A job is part of them from when it is queued until it ends, and says so itself in its field `load`:
what is added and taken off once cannot be so twice.
"""

from typing import Final

# Scripts that begin with it call `load_begin(job, load, label, at_front)` once a job is queued,
# `load_made(job, load, count)` for images that are stored, and `load_end(job, load)` before a job ends.
# label: of images of one checkpoint and encoding. The hash holds `waiting:{label}`, images to be made;
# `total:{label}`, images of the jobs that make them; `front`, jobs that went ahead of the others.
LOAD: Final = """
local function load_add(load, field, count)
  if count ~= 0 and redis.call('HINCRBY', load, field, count) == 0 then redis.call('HDEL', load, field) end
end
local function load_begin(job, load, label, at_front)
  if redis.call('HSETNX', job, 'load', (at_front and '+' or '-') .. label) == 0 then return end
  local sizes = redis.call('HMGET', job, 'total', 'done')
  load_add(load, 'waiting:' .. label, tonumber(sizes[1]) - tonumber(sizes[2]))
  load_add(load, 'total:' .. label, tonumber(sizes[1]))
  if at_front then load_add(load, 'front', 1) end
end
local function load_made(job, load, count)
  local mark = redis.call('HGET', job, 'load')
  if mark then load_add(load, 'waiting:' .. string.sub(mark, 2), -tonumber(count)) end
end
local function load_end(job, load)
  local row = redis.call('HMGET', job, 'load', 'total', 'done')
  if not row[1] then return end
  local label = string.sub(row[1], 2)
  load_add(load, 'waiting:' .. label, tonumber(row[3]) - tonumber(row[2]))
  load_add(load, 'total:' .. label, -tonumber(row[2]))
  if string.sub(row[1], 1, 1) == '+' then load_add(load, 'front', -1) end
  redis.call('HDEL', job, 'load')
end
"""

# The sums anew from the jobs' records, for what a process of another release left out. KEYS: load, active
# jobs. ARGV: prefix of job keys. Returns the number of jobs that are part of them.
RECOUNT: Final = (
    LOAD
    + """
local is_final = {succeeded = true, failed = true, canceled = true, expired = true}
local counted = 0
redis.call('DEL', KEYS[1])
for _, job_id in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  local job = ARGV[1] .. job_id
  local row = redis.call('HMGET', job, 'status', 'load', 'encoding', 'spec')
  if row[2] then redis.call('HDEL', job, 'load') end
  if row[1] and not is_final[row[1]] and row[3] then
    local spec = cjson.decode(row[4])
    local label = spec.model.name .. '@' .. spec.model.version .. ':' .. row[3]
    load_begin(job, KEYS[1], label, spec.at_front == true)
    counted = counted + 1
  end
end
return counted
"""
)


def load_label(model_reference: str, encoding: str) -> str:
    """Of images of one checkpoint and encoding, which take about the same room."""
    return f"{model_reference}:{encoding}"
