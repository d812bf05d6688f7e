-- Note what a message is which was sent; a delivery may have begun, or even ended, before.
redis.call('HSET', message, 'sent', what)
expire_no_sooner(message, ttl)
return 0
