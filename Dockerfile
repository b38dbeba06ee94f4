# syntax=docker/dockerfile:1
# The node in a small image: built with the Rust toolchain and the -dev packages, run with the libraries alone.
#
#   docker build -t satellite-pipeline:0.1.0 .
#
# Both stages stand on the same Debian release, so the libraries that the binary was linked against are those it finds.
# To build the same image again later, pin both images by digest (--build-arg RUST_IMAGE=rust@sha256:..., DEBIAN_IMAGE).
ARG RUST_IMAGE=rust:1.95-slim-bookworm
ARG DEBIAN_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
# g++ and cmake compile librdkafka; the -dev packages are GDAL, SQLite, OpenSSL and zlib.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        cmake g++ make pkg-config libgdal-dev libsqlite3-dev libssl-dev zlib1g-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock rustfmt.toml clippy.toml ./
COPY config ./config
COPY src ./src
# Not built, but Cargo.toml names them.
COPY benches ./benches
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin node && strip -o /node target/release/node

FROM ${DEBIAN_IMAGE}
# libgdal32 brings PROJ and its data. libsqlite3, OpenSSL and zlib are linked directly, so they are named.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        ca-certificates libgdal32 libsqlite3-0 libssl3 zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 satellite \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin satellite \
    && install -d -o satellite -g satellite /data /output
COPY --from=build /node /usr/local/bin/node
COPY config /etc/satellite
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/satellite-pipeline/
USER 10001:10001
WORKDIR /data
STOPSIGNAL SIGTERM
# Healthy: the binary runs here and the settings of the environment can be used. docker-compose.yml asks for more, role
# by role; how far the work is says `node group`, not the health of one container.
HEALTHCHECK --interval=60s --timeout=10s --start-period=10s --retries=3 CMD ["node", "config"]
ENTRYPOINT ["node"]
CMD ["--help"]
