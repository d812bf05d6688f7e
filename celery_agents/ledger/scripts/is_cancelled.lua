-- Reply: whether a message is marked as cancelled.
local _, now = clock()
return is_cancelled(cancelled, message_id, now) and 1 or 0
