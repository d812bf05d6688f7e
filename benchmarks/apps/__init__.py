"""The apps that workers are started on, and who sends to them. Broker, project and agent come from the environment.

AGENTS      the library whose names the agents are declared with: celery_agents or encord_agents.tasks
AGENT       the function of `benchmarks.apps.agents`
BROKER_URL  a Redis, for messages and results
OPTIONS     JSON: further arguments of our `stage`
"""
