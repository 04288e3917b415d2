"""What the job's scripts count besides its state: how long jobs took, and the bytes that they store.

All of it lives in the hash of fleet-wide counters, bumped by the same script as the state it belongs to, so
that nothing is counted twice or lost with a process.
"""

from typing import Final

from worker.contract.messages import ImageEncoding

WAIT, FIRST_IMAGE, DURATION = "queue_wait", "first_image", "duration"
"""Since a job was accepted, of its first attempt: until a worker took it, until the first of its images could
be read, until it succeeded."""

BUCKETS_S: Final = (
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
    120.0,
    300.0,
    600.0,
    1_800.0,
    3_600.0,
    10_800.0,
)

# Scripts that begin with it call `observe(job, counters, name, now)`, which counts the seconds since the job
# was accepted into one bucket, not into those above it; and `store(job, counters, bytes, count, model)`.
TALLY: Final = (
    "local bounds = {" + ", ".join(f"{bound:g}" for bound in BUCKETS_S) + "}"
    """
local function observe(job, counters, name, now)
  local priority = redis.call('HGET', job, 'priority')
  if not priority or redis.call('HGET', job, 'attempt') ~= '1' then return end
  local seconds = math.max(0, tonumber(now) - tonumber(redis.call('HGET', job, 'created_at')))
  local bucket = '+Inf'
  for _, bound in ipairs(bounds) do
    if seconds <= bound then
      bucket = tostring(bound)
      break
    end
  end
  local prefix = 'seconds:' .. name .. ':' .. priority .. ':'
  redis.call('HINCRBY', counters, prefix .. bucket, 1)
  redis.call('HINCRBYFLOAT', counters, prefix .. 'sum', seconds)
end
local function store(job, counters, bytes, count, model)
  redis.call('HINCRBY', job, 'stored_bytes', bytes)
  redis.call('HINCRBY', counters, 'result_bytes', bytes)
  local encoding = redis.call('HGET', job, 'encoding')
  if encoding then
    redis.call('HINCRBY', counters, 'image_bytes:' .. model .. ':' .. encoding, bytes)
    redis.call('HINCRBY', counters, 'images_stored:' .. model .. ':' .. encoding, count)
  end
end
"""
)

# As TALLY, for the script that has a job's files deleted.
UNSTORE: Final = """
local function unstore(job, counters)
  local bytes = redis.call('HGET', job, 'stored_bytes')
  if bytes then
    redis.call('HINCRBY', counters, 'result_bytes', -tonumber(bytes))
    redis.call('HDEL', job, 'stored_bytes', 'parquet_bytes', 'parquet_sha256')
  end
end
"""


def encoding_label(encoding: ImageEncoding) -> str:
    """`png`, `webp-90`: what images of about the same size have in common."""
    return encoding.format if encoding.quality is None else f"{encoding.format}-{encoding.quality}"
