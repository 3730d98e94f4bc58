#!/bin/sh
# Cargo runs this instead of rustc: it gives our own crates the counters of coverage that `cargo fuzz` would set, without a
# sanitizer, which needs a nightly compiler. A counter per branch of every library would take half of libFuzzer's time.
compiler=$1
shift
case " $* " in
*" --crate-name minke"*)
    set -- "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    ;;
esac
exec "$compiler" "$@"
