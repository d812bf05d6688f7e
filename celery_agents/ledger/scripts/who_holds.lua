-- Reply: for each claim that has not lapsed: UUID, message id, whether it waits in its queue, milliseconds left.
-- include lists, messages, records, claims
local _, now = clock()
local reply, task_uuids = {}, split(task_uuids)
for i, id in ipairs(in_chunks('HMGET', holders, task_uuids)) do
  local deadline, is_queued = 0, false
  if id then
    deadline, is_queued = standing(id)
  end
  if deadline > now then
    for _, each in ipairs({task_uuids[i], id, is_queued and 1 or 0, whole(deadline - now)}) do
      reply[#reply + 1] = each
    end
  end
end
return reply
