# One binary on Debian 13 with its LibreOffice 25.2. Both stages install packages through deploy/packages.sh, as the
# README's commands and CI do. deploy/prove-image.sh runs these steps where there is no container engine, and prints what
# each one adds: docs/image.md has the figures.

FROM rust:1.95-slim-trixie AS build
WORKDIR /src
COPY deploy/packages.sh deploy/packages.sh
RUN deploy/packages.sh engine build
COPY . .
RUN cargo build --locked --release --no-default-features

FROM debian:trixie-slim
# Fonts besides: "fonts-cjk", "fonts-emoji" or both. A company's own come with the setting FONTS, without a build.
ARG EXTRA_FONTS=""
COPY deploy/packages.sh deploy/slim-image.sh /usr/local/lib/platen/
RUN /usr/local/lib/platen/packages.sh engine $EXTRA_FONTS \
    && useradd --system --uid 65532 --user-group --home-dir /nonexistent --no-create-home --shell /usr/sbin/nologin platen \
    && /usr/local/lib/platen/slim-image.sh --image
COPY --from=build /src/target/release/platen /usr/local/bin/platen
# By number, so that a platform can see that it is not root.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["platen"]
CMD ["serve"]
