# syntax=docker/dockerfile:1
# Three images from one file: agents (worker and producer; the default), flower, sandbox. docker-compose.yml uses them.
# To put your own app in, write a Dockerfile of three lines:
#   FROM celery-agents
#   COPY app.py celeryconfig.py /app/
#   ENV AGENTS_APP=app

ARG PYTHON=3.12

# Build tools stay in the stages that no image is made of.
FROM python:${PYTHON}-slim AS wheel
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY celery_agents celery_agents
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

# A virtual environment is one folder to copy; the wheel's version is not repeated here.
FROM python:${PYTHON}-slim AS agents-venv
RUN python -m venv /venv
ENV PATH=/venv/bin:$PATH
COPY --from=wheel /dist /dist
RUN pip install --no-cache-dir "$(ls /dist/*.whl)[vision]"

FROM agents-venv AS flower-venv
# 2.2 is the first release that works with Celery 5.6 and 5.7 alike; pyproject.toml has the same pin, which is tested.
RUN pip install --no-cache-dir "flower>=2.2,<3"

FROM agents-venv AS sandbox-venv
RUN pip install --no-cache-dir "$(ls /dist/*.whl)[sandbox]"

FROM python:${PYTHON}-slim AS runtime
# Nothing here needs root, and a worker runs whatever the agent's dependencies contain. A number, so that Kubernetes'
# runAsNonRoot can tell. /sandbox is where the sandbox leaves its key: a volume made from it belongs to the same user.
RUN useradd --uid 1000 --create-home agents && install -d -o agents /app /sandbox
WORKDIR /app
# No .pyc files, for the file system may be read-only; logs line by line.
ENV PATH=/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
COPY celeryconfig.py ./
COPY examples examples
USER 1000

FROM runtime AS flower
COPY --from=flower-venv /venv /venv

FROM runtime AS sandbox
COPY --from=sandbox-venv /venv /venv

FROM runtime AS agents
COPY --from=agents-venv /venv /venv
ENV AGENTS_APP=examples.quickstart
CMD ["sh", "-c", "exec celery -A \"$AGENTS_APP\" worker --loglevel INFO"]
