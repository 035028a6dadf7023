# What a change is held to. `just` lists the recipes.

_default:
    @just --list

# What CI runs
check:
    ./test

# The tests of one crate
test crate:
    cargo nextest run -p {{crate}}

# Rewrites the sources in the house's format
format:
    cargo fmt --all

# What clippy says of everything
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Licences, bans and advisories, where cargo-deny is installed
deny:
    cargo deny check

# Compares the server with what people use now; needs a quiet machine
bench *arguments:
    bench/run {{arguments}}
