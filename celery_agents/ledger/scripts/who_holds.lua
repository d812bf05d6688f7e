-- Reply: for each claim that has not lapsed: UUID, message id, token, milliseconds left.
local _, now = clock()
local reply = {}
for i, claim in ipairs(read_claims(deadlines, holders, task_uuids, now)) do
  if claim and claim.is_live then
    for _, each in ipairs({task_uuids[i], claim.message_id, whole(claim.token), whole(claim.deadline - now)}) do
      reply[#reply + 1] = each
    end
  end
end
return reply
