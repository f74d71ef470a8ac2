#!/bin/sh
# Make the secrets of this example, once: a password for the database, and a token for you and your colleagues.
set -eu
cd "$(dirname "$0")"
umask 077
mkdir secrets
random() { od -An -tx1 -N32 /dev/urandom | tr -d ' \n'; }
password=$(random)
printf '%s' "$password" > secrets/db_password
printf '"mlcore" "%s"\n' "$password" > secrets/pgbouncer_users
printf 'postgresql://mlcore:%s@pgbouncer:6432/mlcore' "$password" > secrets/store
printf 'team=mlc_%s\n' "$(random)" > secrets/tokens
# The containers' users are not you, so the files are open to all; the folder around them is not.
chmod 444 secrets/*
echo "made $(pwd)/secrets: keep it out of your repository; secrets/tokens is what clients log in with"
