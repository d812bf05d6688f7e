"""A Celery configuration that is right for agents: copy it next to your app, and keep the reasons with the settings.

    app = Celery("app")
    app.config_from_object("celeryconfig")

Agents differ from the tasks that Celery's defaults are made for: a message is a batch that runs for seconds or
minutes, each second of it costs money, and what it wrote to Encord cannot be unwritten.
"""

import os

# ------------------------------------------------------------------------------------ where messages and results go

#: From the environment, so that one image and one file serve every deployment. RabbitMQ works as well.
broker_url = os.environ.get("CELERY_BROKER_URL", "redis://localhost:6379/0")

#: Where results are looked up. A database of its own, so that the broker's can be emptied without losing results.
result_backend = os.environ.get("CELERY_RESULT_BACKEND", "redis://localhost:6379/1")

#: Agents get a queue of their own: a worker that also has the app's other tasks would let e-mails wait for models.
task_default_queue = "agents"

# ------------------------------------------------------------------------------------------------- JSON, nothing else

#: Pickle runs whatever somebody puts into the broker. All that agents send and return is JSON, so refuse the rest.
task_serializer = result_serializer = event_serializer = "json"
accept_content = result_accept_content = ["json"]

# ------------------------------------------------------------------------------------------------------ nothing is lost

#: Acknowledge a message when it is done, not when it is begun: the batch of a killed worker comes back.
task_acks_late = True

#: The same for one pool process, which the kernel kills first where memory runs out. Celery's default acknowledges
#: the batch and loses it. An agent task that kills its process every time is found by the ledger, which is on where
#: there is a Redis, or where ``agents_ledger_url`` names one; without a ledger such a batch comes back every time.
task_reject_on_worker_lost = True

#: A redelivered message whose result is stored already was done: acknowledge it and do not run it again.
worker_deduplicate_successful_tasks = True

#: When its connection to RabbitMQ breaks, the broker gives a worker's batches to others: stop the copies here. On Redis
#: workers with agents keep theirs, go on, and acknowledge them by the next connection: there stopping would only repeat
#: work. Tried with 1,000 agent tasks and a broker restarted every four seconds: on Redis True repeats 230, False none.
worker_cancel_long_running_tasks_on_connection_loss = not broker_url.startswith(
    ("redis", "sentinel", "valkey")
)

#: A batch may take so long, and is then interrupted by an exception, and a minute later killed. A model that hangs must
#: not hold a process for ever. Together with the longest pause before a retry (``retry_backoff_max``, ten minutes), for
#: which a worker holds a message as well, it stays below the 30 minutes after which RabbitMQ takes messages away
#: (its ``consumer_timeout``). Stages with slower agents set ``time_limit=`` and ``soft_time_limit=`` themselves.
task_time_limit = 15 * 60
task_soft_time_limit = task_time_limit - 60

#: Redis cannot see that a worker died: it gives a message to somebody else when nobody acknowledged it for the time
#: called ``visibility_timeout``. That is not set here on purpose: workers with agents renew it for all that they hold,
#: and set it to 60 seconds, so that a long batch runs once and a killed worker's batch is back soon. What is set is to
#: notice a broker that vanished without closing the connection (a failed-over host, a forgetful load balancer).
broker_transport_options = {"socket_keepalive": True} if broker_url.startswith(("redis", "sentinel")) else {}

#: The same for the connection by which results are read and written.
redis_socket_keepalive = True

#: A worker that starts before its broker waits for it instead of exiting: containers start in any order.
broker_connection_retry_on_startup = True

#: And one whose broker is away for a night goes on in the morning; Celery's default gives up after 100 attempts.
broker_connection_max_retries = None

# ------------------------------------------------------------------------------------------------------ who works when

#: A worker takes as many batches as it has processes. Prefetched ones would wait behind a long one here, while another
#: worker is idle; together with late acknowledgements 1 means: none is taken in advance.
worker_prefetch_multiplier = 1

#: A pool process that has grown beyond this (KiB) is replaced after its batch, before the kernel kills it in the middle
#: of one: decoders and SDKs leak. It must be well above what your model needs, or the model is loaded for each batch.
#: ``worker_max_tasks_per_child`` does the same by number, and reloads models whether there is need or not.
worker_max_memory_per_child = int(os.environ.get("CELERY_WORKER_MAX_MEMORY_PER_CHILD", str(4 * 1024 * 1024)))

# ---------------------------------------------------------------------------------------------- what can be asked later

#: Tells a batch that runs from one that waits.
task_track_started = True

#: A failed batch is worth knowing of even for a stage that keeps no results.
task_store_errors_even_if_ignored = True

#: Results carry an outcome for each agent task, about half a kilobyte. Long enough for Monday to look into Friday.
result_expires = 3 * 24 * 60 * 60

#: Store the task's name, arguments, queue and worker with the result: a failed batch can be told, and sent again.
result_extended = True

#: Events for Flower and ``celery -A app agents watch``: what was sent, begun, done, and where.
worker_send_task_events = True
task_send_sent_event = True
