#!/bin/sh
# Fuzzes one target with libFuzzer, on the stable toolchain that rust-toolchain.toml pins: the compiler's own coverage
# pass is asked for directly, so that neither nightly nor cargo-fuzz is needed. What finds new ways stays in corpus/.
#
#   fuzz/run.sh inspect                          until it crashes or is stopped; package and options likewise
#   fuzz/run.sh inspect -max_total_time=600      any of libFuzzer's options
set -eu
cd "$(dirname "$0")"
target=${1:?name a target: one of fuzz_targets/}
shift
triple=$(rustc -vV | sed -n 's/^host: //p')
# With --target the flags leave build scripts alone.
RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1" \
  cargo build --release --quiet --target "$triple" --bin "$target"
mkdir -p "corpus/$target" "artifacts/$target"
exec "target/$triple/release/$target" -artifact_prefix="artifacts/$target/" -max_len=65536 -timeout=10 \
  -rss_limit_mb=2048 "$@" "corpus/$target" "seeds/$target"
