-- Ends turns, then takes others.
--
-- KEYS: what the keys of logs begin with. ARGV: a msgpack array of: the asking process as 'node#process'; the lease
-- in ms; for how many ms a log is kept for it if it must wait; the lifetime of what is known of a log in seconds;
-- the channels of nodes without the node; logs to give back; logs to take; groups of indices of the latter. Then the
-- letter for a node that may take a log now. Then the heads of the logs that are given back, '' if unknown.
--
-- The hash of a log has: `owner` and `until` (ms), whose turn it is; `head`, what was committed last, or ''; `waiting`,
-- 'node#process ms' in lines, who comes next. A log that is given back belongs to the first that waits for some ms.
--
-- Returns a string with 1 or 0 for each group, then the head of each log that was granted, nil for others.
local request = cmsgpack.unpack(ARGV[1])
local me, lease, patience, life, channels, given, logs, groups = unpack(request)
local letter = ARGV[2]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local told = {}

local function offset(head)
  return cmsgpack.unpack(head)[1]
end

-- The log belongs to the first that waits, or to nobody.
local function pass_on(key, head, waiting)
  local line = waiting and string.match(waiting, '^[^\n]+')
  if not line then
    redis.call('HSET', key, 'head', head, 'owner', '', 'until', 0)
    return
  end
  local process, ms = string.match(line, '^(%S+) (%d+)$')
  waiting = string.sub(waiting, #line + 2)
  redis.call('HSET', key, 'head', head, 'owner', process, 'until', now + ms, 'waiting', waiting)
  told[string.match(process, '^(.*)#')] = true
end

for number, log in ipairs(given) do
  local key, head = KEYS[1] .. log, ARGV[2 + number]
  local owner, known, waiting = unpack(redis.call('HMGET', key, 'owner', 'head', 'waiting'))
  if owner == me then
    pass_on(key, head, waiting)
  elseif known and known ~= '' and (head == '' or offset(known) < offset(head)) then
    -- The turn had lapsed. Whoever has it now must read the head from the store.
    redis.call('HSET', key, 'head', '')
  end
end

local heads, mine, denied, refused = {}, {}, {}, {}

local function is_free(index)
  if mine[index] then
    return true
  elseif refused[index] then
    return false
  end
  local owner, till, head, waiting = unpack(redis.call('HMGET', KEYS[1] .. logs[index], 'owner', 'until', 'head', 'waiting'))
  local left = owner and tonumber(till) - now
  if owner and owner ~= me and left > 0 and left <= lease then
    refused[index] = waiting or ''
    return false
  end
  heads[index] = head ~= '' and head
  return true, waiting
end

-- Whoever waits already keeps its place.
local function wait_for(index)
  local waiting = refused[index]
  if waiting and not string.find(waiting, me, 1, true) then
    refused[index] = waiting .. me .. ' ' .. patience .. '\n'
    redis.call('HSET', KEYS[1] .. logs[index], 'waiting', refused[index])
  end
end

local function own(index, waiting)
  local key = KEYS[1] .. logs[index]
  mine[index] = true
  redis.call('HSET', key, 'owner', me, 'until', now + lease)
  redis.call('EXPIRE', key, life)
  if waiting and string.find(waiting, me, 1, true) then
    local rest = {}
    for line in string.gmatch(waiting, '[^\n]+') do
      if string.match(line, '^%S+') ~= me then
        rest[#rest + 1] = line .. '\n'
      end
    end
    redis.call('HSET', key, 'waiting', table.concat(rest))
  end
end

local flags = {}
for number, group in ipairs(groups) do
  local granted, queues = true, {}
  for _, index in ipairs(group) do
    if denied[index] then
      granted = false
    else
      local free, waiting = is_free(index)
      granted, queues[index] = granted and free, waiting
    end
  end
  for _, index in ipairs(group) do
    if not granted then
      denied[index] = true
      wait_for(index)
    elseif not mine[index] then
      own(index, queues[index])
    end
  end
  flags[number] = granted and '1' or '0'
end

local result = { table.concat(flags) }
for index in ipairs(logs) do
  result[index + 1] = mine[index] and heads[index] or false
end
for node in pairs(told) do
  redis.call('PUBLISH', channels .. node, letter)
end
return result
