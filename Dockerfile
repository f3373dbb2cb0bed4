# One binary on Debian 13 with its LibreOffice 25.2. Both stages install packages through deploy/packages.sh, as the
# README's commands and CI do. deploy/prove-image.sh runs these steps where there is no container engine.

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY deploy/packages.sh deploy/packages.sh
RUN deploy/packages.sh engine build
COPY . .
RUN cargo build --locked --release --no-default-features

FROM debian:trixie-slim
COPY deploy/packages.sh /usr/local/lib/platen/packages.sh
RUN /usr/local/lib/platen/packages.sh engine \
    && useradd --system --uid 65532 --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin platen \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/platen /usr/local/bin/platen
# By number, so that a platform can see that it is not root.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["platen"]
CMD ["serve"]
