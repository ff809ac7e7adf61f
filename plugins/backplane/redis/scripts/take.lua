-- Takes turns. KEYS: owners of logs. ARGV: the node, the lease in ms, then for each group the number of its logs
-- and their indices in KEYS. Returns 1 or 0 for each group. What is denied to a group is denied to all later ones.
local node, lease, at = ARGV[1], ARGV[2], 3
local result, denied = {}, {}
while at <= #ARGV do
  local count, free = tonumber(ARGV[at]), 1
  for i = at + 1, at + count do
    local index = tonumber(ARGV[i])
    local owner = not denied[index] and redis.call('GET', KEYS[index])
    if denied[index] or (owner and owner ~= node) then
      free = 0
      break
    end
  end
  for i = at + 1, at + count do
    local index = tonumber(ARGV[i])
    if free == 1 then
      redis.call('SET', KEYS[index], node, 'PX', lease)
    else
      denied[index] = true
    end
  end
  result[#result + 1] = free
  at = at + count + 1
end
return result
