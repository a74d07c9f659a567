# Build:  docker build -t rekindle .
# Run:    docker run -p 3567:3567 -v rekindle-data:/data -v ./rekindle.toml:/etc/rekindle/rekindle.toml:ro rekindle
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
