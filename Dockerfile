# The service, with a health check, as a user without rights:
#
#     docker build --tag opusagent-voiceprint .
#     docker run --rm --read-only --tmpfs /tmp --volume voiceprint:/var/lib/voiceprint opusagent-voiceprint keys create --role admin
#     docker run --read-only --tmpfs /tmp --volume voiceprint:/var/lib/voiceprint --publish 127.0.0.1:8000:8000 opusagent-voiceprint
#
# compose.yaml has the same with PostgreSQL, docs/operations.md says the rest. `make container` runs these lines without docker.
FROM python:3.11-slim AS build
WORKDIR /opt/source
RUN python -m venv /opt/voiceprint
COPY requirements-slim.txt requirements-server.txt constraints.txt ./
RUN /opt/voiceprint/bin/pip install --no-cache-dir --only-binary :all: --requirement requirements-server.txt
COPY . .
RUN /opt/voiceprint/bin/pip install --no-cache-dir --constraint constraints.txt --no-deps resemblyzer .

FROM python:3.11-slim
COPY --from=build /opt/voiceprint /opt/voiceprint
# A number, which Kubernetes' runAsNonRoot can check, and which needs no entry in the list of users.
RUN install -d -o 10001 -g 10001 -m 700 /var/lib/voiceprint
ENV PATH=/opt/voiceprint/bin:/usr/local/bin:/usr/bin:/bin \
    HOME=/var/lib/voiceprint \
    PYTHONDONTWRITEBYTECODE=1 \
    VOICE_SERVER_HOST=0.0.0.0 \
    VOICE_SERVER_BEHIND_PROXY=true \
    VOICE_SERVER_STATE=/var/lib/voiceprint/server.db \
    VOICE_STORAGE_BACKEND=sqlite \
    VOICE_STORAGE_PATH=/var/lib/voiceprint/voiceprints.db
WORKDIR /var/lib/voiceprint
VOLUME /var/lib/voiceprint
USER 10001:10001
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=15s --start-period=60s CMD ["voiceprint", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["voiceprint"]
CMD ["serve"]
