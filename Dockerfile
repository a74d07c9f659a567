# Build:  docker build -t rekindle .
#
# The configuration needs, beside issuer and secrets, what makes the server reachable from outside of the container:
#   listen = "0.0.0.0:3567", with [tls], or with trusted_proxies naming the proxy that ends TLS; data_dir = "/data".
# The user in the container is 10001: the files it reads must be its own, with mode 0600. No server starts without an API key.
#
#   mounts="-v rekindle-data:/data -v ./rekindle.toml:/etc/rekindle/rekindle.toml:ro -v ./secrets:/etc/rekindle/secrets:ro"
# Key:    docker run --rm $mounts -e "REKINDLE_CONFIG=/etc/rekindle/rekindle.toml" rekindle api-key create --name backend --scope sessions
# Run:    docker run -p 3567:3567 $mounts rekindle
FROM rust:1-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin rekindle

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin rekindle \
    && install -d -o rekindle -g rekindle -m 0700 /data
COPY --from=build /src/target/release/rekindle /usr/local/bin/rekindle
USER rekindle
VOLUME /data
WORKDIR /data
EXPOSE 3567
# Readiness is for the orchestrator: GET /readyz
ENTRYPOINT ["/usr/local/bin/rekindle"]
CMD ["serve", "--config", "/etc/rekindle/rekindle.toml"]
