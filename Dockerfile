# Written without a Docker at hand and not built yet: its steps were tried one by one on Debian 12 (docs/deploying.md).
#     docker build --tag lookalike .
#     docker run --rm -v collection:/collection -v /srv/photographs:/photographs:ro lookalike python img2vec.py --views /photographs
#     docker run --rm -v collection:/collection -v /srv/photographs:/photographs:ro -p 127.0.0.1:8080:8080 lookalike

FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
# Annoy compiles for the very processor that builds it; the image runs on others too.
ENV ANNOY_COMPILER_ARGS=-O3,-ffast-math,-fno-associative-math,-DANNOYLIB_MULTITHREADED_BUILD,-std=c++14
COPY requirements.txt constraints.txt /build/
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir --requirement /build/requirements.txt --constraint /build/constraints.txt

FROM python:3.12-slim-bookworm
# The user owns its two folders and nothing of the program.
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin lookalike \
    && install --directory --owner=lookalike --group=lookalike --mode=0700 /collection /run/lookalike
COPY --from=build /venv /venv
COPY . /app
RUN /venv/bin/python -m compileall -q /app
WORKDIR /app
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    KERAS_HOME=/collection/keras \
    LOOKALIKE_HOST=0.0.0.0 \
    LOOKALIKE_RSC_FILES=/collection \
    LOOKALIKE_RUN_FOLDER=/run/lookalike
USER lookalike
VOLUME /collection
EXPOSE 8080
# A network that is opened for the first time is converted first, which takes a minute.
HEALTHCHECK --interval=30s --timeout=5s --start-period=300s CMD ["python", "-m", "commands.healthy"]
# No shell in between: SIGTERM reaches the service, which answers what it has begun.
CMD ["python", "app.py"]
