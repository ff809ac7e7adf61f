-- Ends turns, then takes others.
--
-- KEYS: what the keys of logs begin with. ARGV: a msgpack array of: the asking process as 'node#process'; the lease
-- in ms; for how many ms a log is kept for it if it must wait; for how many ms it has waited; the lifetime of what is
-- known of a log in seconds; the channels of nodes without the node; logs to give back; logs to take; groups of
-- indices of the latter. Then the letter for a node that may take a log now. Then the heads of the logs that are
-- given back, '' if unknown.
--
-- The hash of a log has: `owner` and `until` (ms), whose turn it is; `head`, what was committed last, or '';
-- `waiting`, lines of who waits: 'node#process', since when, for how many ms the log is kept, until when it is kept.
-- A log is not given to whoever has waited for less time than another for whom it is kept. As this order is the same
-- for all logs, whoever has waited longest gets all logs of a group.
--
-- Returns a string with 1 or 0 for each group, then the head of each log that was granted, nil for others.
local request = cmsgpack.unpack(ARGV[1])
local me, lease, patience, waited, life, channels, given, logs, groups = unpack(request)
local letter = ARGV[2]
local impatience = 100 -- ms. Who has waited longer has all logs of its groups kept, not only those that are missing
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local since = waited > 0 and now - waited or now + 1 -- who comes now is after all that wait
local told = {}

local function offset(head)
  return cmsgpack.unpack(head)[1]
end

-- Who else waits for a log, without those that have not asked for so long that they are gone.
local function others(waiting)
  local result = {}
  for process, start, ms, till in string.gmatch(waiting or '', '(%S+) (%d+) (%d+) (%d+)\n') do
    if process ~= me and till + lease > now then
      result[#result + 1] = { process, tonumber(start), ms, tonumber(till) }
    end
  end
  return result
end

local function text(lines)
  for number, line in ipairs(lines) do
    lines[number] = string.format('%s %.0f %s %.0f\n', line[1], line[2], line[3], line[4])
  end
  return table.concat(lines)
end

local function is_before(start, process, other)
  return start < other[2] or (start == other[2] and process < other[1])
end

-- The log is free, and kept for the one that has waited longest.
local function pass_on(key, head, waiting)
  local lines, first = others(waiting), nil
  for _, line in ipairs(lines) do
    if not first or is_before(line[2], line[1], first) then
      first = line
    end
  end
  if not first then
    redis.call('HSET', key, 'head', head, 'owner', '', 'until', 0)
    return
  end
  first[4] = now + first[3]
  told[string.match(first[1], '^(.*)#')] = true
  redis.call('HSET', key, 'head', head, 'owner', '', 'until', 0, 'waiting', text(lines))
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

local states, mine, denied = {}, {}, {}

local function is_kept(waiting)
  for _, line in ipairs(others(waiting)) do
    if line[4] > now and not is_before(since, me, line) then
      return true
    end
  end
  return false
end

-- Whether a log is free for this process, its head, and who waits for it.
local function state(index)
  if not states[index] then
    local key = KEYS[1] .. logs[index]
    local owner, till, head, waiting = unpack(redis.call('HMGET', key, 'owner', 'until', 'head', 'waiting'))
    local left = owner and owner ~= '' and owner ~= me and tonumber(till) - now or 0
    local is_held = left > 0 and left <= lease
    waiting = waiting ~= '' and waiting
    states[index] = { not is_held and not (waiting and is_kept(waiting)), head ~= '' and head, waiting }
  end
  return states[index]
end

local function wait_for(index)
  local key, lines = KEYS[1] .. logs[index], others(state(index)[3])
  lines[#lines + 1] = { me, now - waited, patience, now + patience }
  redis.call('HSET', key, 'waiting', text(lines))
  redis.call('EXPIRE', key, life)
end

local function own(index)
  local key, waiting = KEYS[1] .. logs[index], state(index)[3]
  mine[index] = true
  if waiting then
    redis.call('HSET', key, 'owner', me, 'until', now + lease, 'waiting', text(others(waiting)))
  else
    redis.call('HSET', key, 'owner', me, 'until', now + lease)
  end
  redis.call('EXPIRE', key, life)
end

local flags = {}
for number, group in ipairs(groups) do
  local granted = true
  for _, index in ipairs(group) do
    granted = granted and not denied[index] and (mine[index] or state(index)[1])
  end
  for _, index in ipairs(group) do
    if granted and not mine[index] then
      own(index)
    elseif not granted and not denied[index] then
      denied[index] = true
      if not mine[index] and (waited > impatience or not state(index)[1]) then
        wait_for(index)
      end
    end
  end
  flags[number] = granted and '1' or '0'
end

local result = { table.concat(flags) }
for index in ipairs(logs) do
  result[index + 1] = mine[index] and states[index][2] or false
end
for node in pairs(told) do
  redis.call('PUBLISH', channels .. node, letter)
end
return result
