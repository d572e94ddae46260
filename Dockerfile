# A ringfence worker. All that is installed comes from dist/wheels (`make wheels`), so the image builds without a network; there is
# nothing here that the classic builder does not know (DOCKER_BUILDKIT=0).
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
COPY requirements-image.lock /
COPY dist/wheels /wheels
# The hashes are checked again: dist/wheels lay on somebody's disk in the meantime.
RUN python3 -m venv /opt/ringfence \
 && /opt/ringfence/bin/python -m pip install --no-cache-dir --no-index --find-links=/wheels --require-hashes -r /requirements-image.lock \
 && /opt/ringfence/bin/python -m pip install --no-cache-dir --no-index --no-deps /wheels/ringfence-*.whl

FROM ${BASE}
# Written by hand, for not every base has useradd.
RUN echo 'ringfence:x:10001:10001::/var/lib/ringfence:/bin/false' >> /etc/passwd \
 && mkdir /var/lib/ringfence && chown 10001:10001 /var/lib/ringfence
COPY --from=build /opt/ringfence /opt/ringfence
ENV PATH=/opt/ringfence/bin:$PATH PYTHONUNBUFFERED=1 RINGFENCE_READY_FILE=/tmp/ringfence-ready
USER ringfence
WORKDIR /var/lib/ringfence
ENTRYPOINT ["ringfence"]
CMD ["worker"]
