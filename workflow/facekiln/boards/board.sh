#!/bin/sh
# facekiln's part on the board: POSIX sh and what busybox has, so that nothing is installed there.
#
#   sh board.sh WORK LEASE COMMAND [ARG ...]
#
# An answer is one word, then lines of key=value. A fault is `fault KIND text` with exit status 3.
# Time is the board's uptime: it survives a clock that is set in mid-run, and boot_id tells a reboot.
# $KILN_BOOT_FILE and $KILN_NO_SETSID exist for tests.
set -u
WORK=$1 LEASE=$2 COMMAND=$3
SELF=$0
shift 3

fault() {
    printf 'fault %s\n' "$*"
    exit 3
}

tick() { # -> now (seconds), centi (hundredths)
    if { read -r uptime _ </proc/uptime; } 2>/dev/null; then
        now=${uptime%%.*}
        centi=$now${uptime#*.}
    else
        now=$(date +%s)
        centi=${now}00
    fi
}

read_boot() { # -> boot
    { read -r boot <"${KILN_BOOT_FILE:-/proc/sys/kernel/random/boot_id}"; } 2>/dev/null || boot=unknown
}

await() { # SECONDS FILE: until it is there; a busy board may need long for what mostly is done at once
    tick
    until=$((now + $1))
    while [ ! -e "$2" ] && [ "$now" -le "$until" ]; do
        nap 0.05
        tick
    done
}

nap() { sleep "$1" 2>/dev/null || sleep 1; }

have() { command -v "$1" >/dev/null 2>&1; }

group_of() { # PID -> my_group, 0 where it cannot be told
    { read -r fields <"/proc/$1/stat"; } 2>/dev/null || fields=') 0 0 0'
    # shellcheck disable=SC2086  # numbers; the name before them may hold blanks
    set -- ${fields##*) }
    my_group=$3
}

size_of() { # -> size, 0 where there is no such file
    # Another upload of the same file may move it away at any moment.
    size=$({ [ -f "$1" ] && wc -c <"$1"; } 2>/dev/null)
    size=$((${size:-0}))
}

free_of() { # -> free, kilobytes of the work folder
    free=$(($(df -Pk "$WORK" | awk 'END {print $4}')))
}

sha256() { # of standard input; BYTES of it
    # OpenSSL uses the processor's instructions, coreutils and busybox seldom do; but it starts slowly.
    if [ "$1" -gt 4000000 ] && have openssl; then
        openssl dgst -sha256 -r | cut -c1-64
    elif have sha256sum; then
        sha256sum | cut -c1-64
    elif busybox sha256sum </dev/null >/dev/null 2>&1; then
        busybox sha256sum | cut -c1-64
    elif have openssl; then
        openssl dgst -sha256 -r | cut -c1-64
    elif have shasum; then
        shasum -a 256 | cut -c1-64
    elif have python3; then
        python3 -c 'import hashlib, sys
digest = hashlib.sha256()
for chunk in iter(lambda: sys.stdin.buffer.read(1 << 20), b""): digest.update(chunk)
print(digest.hexdigest())'
    else
        echo none
    fi
}

prepare() { # the work folder, or why there is none
    # In a subshell, as a failed redirection of `:` ends a POSIX shell.
    mkdir -p "$WORK/blobs" "$WORK/runs" "$WORK/bin" && (: >"$WORK/.try$$") && rm -f "$WORK/.try$$" && return
    case $(LC_ALL=C mkdir -p "$WORK/blobs" "$WORK/runs" 2>&1; LC_ALL=C touch "$WORK/.try$$" 2>&1) in
    *"Read-only"*) fault read-only "$WORK" ;;
    *"No space"*) fault disk-full "$WORK" ;;
    *) fault unwritable "$WORK" ;;
    esac
} 2>/dev/null

# --- blobs -------------------------------------------------------------------------------------------------

cmd_has() { # SHA256 ...: which of them are here; what is used is touched, so that age counts from the last use
    prepare
    free_of
    printf 'ok\nfree_kb=%s\n' "$free"
    for sha; do
        if [ -f "$WORK/blobs/$sha" ]; then
            touch "$WORK/blobs/$sha"
            echo "$sha=1"
        fi
    done
}

# An upload writes a file of its own, SHA256.open-TOKEN-PID-BOOT, so that two that meet cannot mix their bytes.
# What it leaves behind goes on as SHA256.part-TOKEN of whoever renames it, which only one can do.

writer_of() { # FILE -> token, writer; fails where that process is gone
    fields=${1##*.open-}
    token=${fields%%-*} fields=${fields#*-}
    writer=${fields%%-*}
    read_boot
    # A number may be another process's by now.
    [ "${fields#*-}" = "$boot" ] && kill -0 "$writer" 2>/dev/null &&
        { [ ! -r "/proc/$writer/cmdline" ] || tr '\000' '\n' <"/proc/$writer/cmdline" | grep -qxF "$token"; } 2>/dev/null
}

cmd_begin() { # SHA256 TOKEN SIZE [steal]: where to go on, or that another upload is at it
    prepare
    blob=$WORK/blobs/$1 part=$WORK/blobs/$1.part-$2
    if [ -f "$blob" ]; then
        touch "$blob"
        rm -f "$part" "$blob.open-$2-"*
        echo have
        return
    fi
    for file in "$blob".open-*; do
        [ -f "$file" ] || continue
        if writer_of "$file"; then
            if [ "$token" != "$2" ] && [ "${4:-}" != steal ]; then
                size_of "$file"
                printf 'busy\nsize=%s\n' "$size"
                return
            fi
            # The old writer of a connection that is gone; what it has received stays.
            group_of "$writer"
            group=$my_group
            group_of self
            [ "$group" = 0 ] || [ "$group" = "$my_group" ] || kill -KILL "-$group" 2>/dev/null
            kill -KILL "$writer" 2>/dev/null
            nap 0.1
        fi
        size_of "$part"
        longest=$size
        size_of "$file"
        if [ "$size" -gt "$longest" ]; then mv -f "$file" "$part" 2>/dev/null; else rm -f "$file"; fi
    done
    size_of "$part"
    if [ "$size" -gt "$3" ]; then # no part of it
        rm -f "$part"
        size=0
    fi
    free_of
    printf 'at\noffset=%s\nfree_kb=%s\n' "$size" "$free"
}

cmd_receive() { # SHA256 TOKEN OFFSET SIZE <data: append, and when all is there verify and name it
    sha=$1 offset=$3 total=$4
    read_boot
    blob=$WORK/blobs/$1 part=$WORK/blobs/$1.part-$2 open=$WORK/blobs/$1.open-$2-$$-$boot
    size_of "$part"
    if [ "$size" -ne "$offset" ] || { [ "$offset" -gt 0 ] && ! mv "$part" "$open" 2>/dev/null; }; then
        printf 'moved\noffset=%s\n' "$size"
        return
    fi
    if [ "$offset" -eq 0 ]; then
        # Hashed as it passes; the size tells whether every byte was stored.
        seen=$(tee "$open" 2>/dev/null | sha256 "$total")
    else
        cat >>"$open" 2>/dev/null
        seen=
    fi
    size_of "$open"
    if [ "$size" -lt "$total" ]; then
        free_of
        if [ "$free" -lt 64 ]; then
            rm -f "$open"
            fault disk-full "$WORK"
        fi
        printf 'short\noffset=%s\n' "$size"
        return
    fi
    [ -n "$seen" ] || seen=$(sha256 "$size" <"$open")
    if [ "$seen" = none ]; then fault no-sha256 "$WORK"; fi
    if [ "$size" -ne "$total" ] || [ "$seen" != "$sha" ]; then
        rm -f "$open"
        printf 'mismatch\nsha256=%s\n' "$seen"
        return
    fi
    if ! mv -f "$open" "$blob" 2>/dev/null; then # another took this upload for a stalled one
        printf 'short\noffset=0\n'
        return
    fi
    for file in "$blob".part-* "$blob".open-*; do
        if [ -f "$file" ] && ! writer_of "$file"; then rm -f "$file"; fi
    done
    echo stored
}

cmd_place() { # RUN SHA256 NAME [SHA256 NAME ...]: blobs under their names in a run's folder
    prepare
    folder=$WORK/runs/$1
    shift
    while [ $# -ge 2 ]; do
        [ -f "$WORK/blobs/$1" ] || fault no-blob "$1"
        mkdir -p "$(dirname "$folder/$2")"
        ln -f "$WORK/blobs/$1" "$folder/$2" 2>/dev/null || ln -sf "$WORK/blobs/$1" "$folder/$2" 2>/dev/null ||
            cp "$WORK/blobs/$1" "$folder/$2" || fault disk-full "$WORK"
        shift 2
    done
    printf 'placed\nfolder=%s\n' "$folder"
}

cmd_stat() { # FILE
    [ -f "$1" ] || fault no-file "$1"
    size_of "$1"
    printf 'file\nsize=%s\n' "$size"
}

cmd_hash() { # FILE
    [ -f "$1" ] || fault no-file "$1"
    size_of "$1"
    seen=$(sha256 "$size" <"$1")
    [ "$seen" != none ] || fault no-sha256 "$WORK"
    printf 'hash\nsha256=%s\n' "$seen"
}

cmd_send() { # FILE OFFSET: its bytes from there
    if [ "$2" -eq 0 ]; then exec cat "$1"; fi
    exec tail -c "+$(($2 + 1))" "$1"
}

cmd_clean() { # DAYS: what was not used for so long; a run that goes on is left
    echo cleaned
    find "$WORK/blobs" -type f -mtime "+$1" 2>/dev/null | while IFS= read -r file; do
        rm -f "$file" && echo "removed=${file##*/}"
    done
    find "$WORK/runs" -type f -name status -mtime "+$1" 2>/dev/null | while IFS= read -r file; do
        folder=${file%/status}
        rm -rf "$folder" && echo "removed=${folder##*/}"
    done
}

# --- the lease ---------------------------------------------------------------------------------------------
# The file lease-N of the highest N is the lease. To take it is to create lease-N+1, which the kernel lets one
# client do (a hard link), after lease-N was freed, has run out, or is from before a reboot. Whoever writes
# looks afterwards whether a higher one is there, so that of a late holder and a taker at most one goes on.
# Seconds are cut off, so one more is given: the holder, who counts from before its call, gives up first.
# The folder is for one account of the board. Several share it where they say so; it is sticky then, so that
# none of them removes or replaces what is another's, and nothing here needs that.

owner_of() { # FILE -> owner, a number
    # shellcheck disable=SC2012,SC2046  # numbers before the name; `stat` is not everywhere
    set -- $(ls -ldn "$1" 2>/dev/null)
    owner=${3:-}
}

lease_open() { # [ACCESS]: the lease's folder can be used, and is made where ACCESS says for whom
    # It lies in /tmp by default: a link that another user put there is not followed.
    [ ! -L "$LEASE" ] || fault unwritable "$LEASE, a symbolic link"
    me=$(id -u)
    if [ $# -gt 0 ]; then
        case $1 in
        group) mode=1770 ;;
        all) mode=1777 ;;
        *) mode=700 ;;
        esac
        [ -d "$LEASE" ] || (umask 077; mkdir -p "$LEASE") 2>/dev/null
        owner_of "$LEASE"
        if [ "$owner" = "$me" ]; then
            chmod "$mode" "$LEASE" 2>/dev/null
        elif [ -n "$owner" ] && [ "$mode" = 700 ]; then
            fault foreign "$LEASE"
        fi
    fi
    [ -d "$LEASE" ] || return 0
    if [ ! -r "$LEASE" ] || [ ! -x "$LEASE" ]; then fault foreign "$LEASE"; fi
    for file in "$LEASE"/lease-*; do
        # What cannot be read may be held; what another taker has removed meanwhile cannot be read either.
        if [ ! -r "$file" ] && [ -e "$file" ]; then fault foreign "$file"; fi
    done
    [ $# -eq 0 ] || [ -w "$LEASE" ] || fault unwritable "$LEASE"
}

lease_last() { # -> last
    last=
    while [ -z "$last" ]; do
        for file in "$LEASE"/lease-*; do [ -e "$file" ] && last=$file; done
        # All that were listed are gone: a taker removed them after it had made a higher one, so look again.
        [ "$file" != "$LEASE/lease-*" ] || return 0
    done
}

lease_read() { # FILE -> l_token l_owner l_purpose l_boot l_expires l_taken l_state
    l_token='' l_owner='' l_purpose='' l_boot='' l_expires=0 l_taken=0 l_state=free
    { while IFS='=' read -r key value; do
        case $key in
        token) l_token=$value ;;
        owner) l_owner=$value ;;
        purpose) l_purpose=$value ;;
        boot) l_boot=$value ;;
        expires) l_expires=$value ;;
        taken) l_taken=$value ;;
        state) l_state=$value ;;
        esac
    done <"$1"; } 2>/dev/null
}

lease_alive() { # of what lease_read read; needs tick and read_boot
    [ "$l_state" = held ] && [ "$l_boot" = "$boot" ] && [ "$now" -lt "$l_expires" ]
}

lease_text() { # STATE EXPIRES
    printf 'token=%s\nowner=%s\npurpose=%s\nboot=%s\nexpires=%s\ntaken=%s\nstate=%s\n' \
        "$l_token" "$l_owner" "$l_purpose" "$boot" "$2" "$l_taken" "$1"
}

lease_tell() { # WORD
    tick
    printf '%s\nowner=%s\npurpose=%s\nleft=%s\nheld_for=%s\n' \
        "$1" "$l_owner" "$l_purpose" $((l_expires - now)) $((now - l_taken))
}

lease_put() { # TOKEN STATE EXPIRES -> new, a file of this process, for everybody who may enter the folder
    # A call whose connection was cut may still be at it when the same client calls again.
    new=$LEASE/.new-$1-$$
    umask 022
    lease_text "$2" "$3" >"$new"
}

lease_next() { # FILE or nothing -> mine, the next one of the row
    number=${1##*-}
    while [ "${number#0}" != "$number" ]; do number=${number#0}; done
    mine=$LEASE/lease-$(printf '%010d' $((${number:-0} + 1)))
}

lease_link() { # -> status 0 where `new` is `mine` now, 1 where another has made that; `new` is gone
    for _ in 1 2 3 4 5; do
        if ln "$new" "$mine" 2>/dev/null; then
            rm -f "$new"
            return 0
        fi
        # One that is gone again was made by a taker who then gave up.
        if [ -e "$mine" ]; then
            rm -f "$new"
            return 1
        fi
    done
    rm -f "$new"
    fault no-links "$LEASE"
}

cmd_lease_take() { # TOKEN TTL OWNER PURPOSE [user, group or all: whose accounts share the board]
    lease_open "${5:-user}"
    read_boot
    lease_last
    before=$last
    if [ -n "$before" ]; then
        lease_read "$before"
        tick
        if lease_alive; then
            if [ "$l_token" = "$1" ]; then lease_tell taken; else lease_tell busy; fi
            return
        fi
    fi
    lease_next "$before"
    tick
    l_token=$1 l_owner=$3 l_purpose=$4 l_taken=$now
    lease_put "$1" held $((now + $2 + 1)) || fault disk-full "$LEASE"
    if ! lease_link; then
        lease_read "$mine"
        if [ "$l_token" = "$1" ]; then lease_tell taken; else lease_tell busy; fi
        return
    fi
    if [ -n "$before" ]; then
        lease_read "$before"
        tick
        if lease_alive; then # its holder was late, and in time
            rm -f "$mine"
            lease_tell busy
            return
        fi
    fi
    lease_last
    if [ "$last" != "$mine" ]; then
        rm -f "$mine"
        lease_read "$last"
        lease_tell busy
        return
    fi
    if ! reap; then
        rm -f "$mine"
        fault leftover "$left"
    fi
    for file in "$LEASE"/lease-*; do [ "$file" = "$mine" ] || rm -f "$file" 2>/dev/null; done
    lease_read "$mine"
    lease_tell taken
}

lease_renew() { # TOKEN TTL -> status 0 while it is ours
    lease_last
    before=$last
    lease_read "$before"
    tick
    [ -n "$before" ] && [ "$l_token" = "$1" ] && lease_alive || return 1
    lease_put "$1" held $((now + $2 + 1)) && mv -f "$new" "$before" || return 1
    lease_last
    [ "$last" = "$before" ]
}

cmd_lease_free() { # TOKEN, or `any` by force
    lease_open
    read_boot
    lease_last
    if [ -n "$last" ]; then
        lease_read "$last"
        tick
        if lease_alive && { [ "$l_token" = "$1" ] || [ "$1" = any ]; }; then
            lease_put "$1" free "$now" || fault disk-full "$LEASE"
            # That of another account cannot be replaced; a free one behind it tells the same.
            if ! mv -f "$new" "$last" 2>/dev/null; then
                lease_next "$last"
                ln "$new" "$mine" 2>/dev/null || taken=1
                rm -f "$new"
                [ -z "${taken:-}" ] || { echo lost; return; }
            fi
            lease_tell freed
            return
        fi
    fi
    echo lost
}

cmd_lease_status() {
    lease_open
    read_boot
    while lease_last && [ -n "$last" ]; do
        lease_read "$last"
        [ ! -e "$last" ] || break # else a taker has just replaced it
    done
    tick
    if [ -n "$last" ] && lease_alive; then lease_tell held; else echo free; fi
}

# --- runs --------------------------------------------------------------------------------------------------

marked() { # RUN: processes of a run, also those that left its group
    # All at once first, as mostly there is none. Not by `grep -l`: busybox's ends at a file's first NUL.
    mark=FACEKILN_RUN=$1
    set --
    for file in /proc/[0-9]*/environ; do set -- "$@" "$file" /proc/uptime; done # which ends a last line
    cat "$@" 2>/dev/null | tr '\000' '\n' | grep -qxF "$mark" || return 0
    for file in /proc/[0-9]*/environ; do
        { tr '\n\000' ' \n' <"$file" | grep -qxF "$mark"; } 2>/dev/null || continue
        file=${file#/proc/}
        echo "${file%/environ}"
    done
}

unseen() { # RUN GROUP -> status 0 when nothing of it is seen
    [ -z "$(marked "$1")" ] && ! kill -0 "-$2" 2>/dev/null
}

replaced() { # -> status 0 while another program just replaces one that began after `begun`
    # It has no environment then, for long on a busy board; what never had one is older mostly.
    grep -L . /proc/[0-9]*/environ 2>/dev/null | {
        while IFS= read -r file; do
            # Neither the kernel's own nor what has ended has a program.
            [ -e "${file%/environ}/exe" ] || continue
            { read -r fields <"${file%/environ}/stat"; } 2>/dev/null || continue
            # shellcheck disable=SC2086  # numbers; the name before them may hold blanks
            set -- ${fields##*) }
            [ "${20}" -lt "${begun:-0}" ] || exit 0
        done
        exit 1
    }
}

is_gone() { # RUN GROUP -> status 0 when nothing of it lives
    unseen "$1" "$2" || return 1
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        nap 0.1
        replaced || break
    done
    unseen "$1" "$2"
}

kill_run() { # RUN GROUP -> status 0 when nothing of it lives
    for signal in TERM KILL KILL KILL KILL; do
        if is_gone "$1" "$2"; then return 0; fi
        pids=$(marked "$1")
        kill "-$signal" "-$2" 2>/dev/null
        # shellcheck disable=SC2086  # a list of numbers
        [ -z "$pids" ] || kill "-$signal" $pids 2>/dev/null
        for _ in 1 2 3 4 5 6 7 8 9 10; do
            if is_gone "$1" "$2"; then return 0; fi
            nap 0.1
        done
    done
    return 1
}

foreign_ends() { # GROUP OWNER -> status 0 when another account's run has ended; its own watcher ends it
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        owner_of "/proc/$1"
        [ "$owner" = "$2" ] || return 0
        nap 0.2
    done
    return 1
}

reap() { # end what runs of earlier leases left -> status 0, or left=RUN
    for file in "$LEASE"/run-*; do
        [ -e "$file" ] || continue
        left=${file##*/run-}
        { read -r group run_boot <"$file"; } 2>/dev/null
        # Others may write here too: `kill -- -1` would end all that we may end, an empty name matches all.
        case ${group:-0} in 0 | 1 | *[!0-9]*) left='' ;; esac
        owner_of "$file"
        [ -n "$owner" ] || continue
        if [ -n "$left" ] && [ "${run_boot:-}" = "$boot" ]; then
            # Where we may not remove the file, its group's number may be anybody's by now.
            if [ "$me" != 0 ] && [ "$owner" != "$me" ]; then foreign_ends "$group" "$owner" || return 1; else
                kill_run "$left" "$group" || return 1
            fi
        fi
        rm -f "$file" 2>/dev/null
    done
}

cmd_start() { # RUN TIMEOUT GRACE POLL OUTPUT_KB MEMORY_KB TOKEN <job: detached; a second call finds the first
    prepare
    dir=$WORK/runs/$1
    mkdir -p "$dir" || fault disk-full "$WORK"
    cat >"$dir/.job$$" || fault disk-full "$WORK"
    if [ "$(tail -n 1 "$dir/.job$$")" != "# end" ]; then
        rm -f "$dir/.job$$"
        fault short "$1"
    fi
    mv -f "$dir/.job$$" "$dir/job.sh"
    if mkdir "$dir/started" 2>/dev/null; then
        detach "$SELF" "$WORK" "$LEASE" watch "$@" </dev/null >"$dir/watch.log" 2>&1 &
    fi
    await 15 "$dir/pid"
    read_boot
    printf 'started\nboot=%s\nfolder=%s\n' "$boot" "$dir"
}

own_session() { have setsid && [ -z "${KILN_NO_SETSID:-}" ]; }

detach() {
    if own_session; then exec setsid sh "$@"; fi
    trap '' HUP
    exec sh "$@"
}

cmd_watch() { # RUN TIMEOUT GRACE POLL OUTPUT_KB MEMORY_KB TOKEN: not called by the client
    run=$1 dir=$WORK/runs/$1 memory=$6 token=${7:-}
    trap '' HUP INT
    read_boot
    tick
    begun=$centi
    # shellcheck disable=SC3045  # dash and busybox have both
    ulimit -c 0 2>/dev/null
    (
        # shellcheck disable=SC3045
        [ "$memory" -eq 0 ] || ulimit -v "$memory" || exit 98
        cd "$dir" || exit 97
        export FACEKILN_RUN="$run"
        if own_session; then exec setsid sh "$dir/job.sh"; fi
        exec sh "$dir/job.sh"
    ) </dev/null >"$dir/stdout" 2>"$dir/stderr" &
    child=$!
    [ -z "$token" ] || (umask 022; echo "$child $boot" >"$LEASE/run-$run")
    echo "$child $$ $boot" >"$dir/.pid" && mv -f "$dir/.pid" "$dir/pid"
    guard "$@" &
    guardian=$!
    wait "$child"
    status=$?
    tick
    lasted=$((centi - begun))
    kill "$guardian" 2>/dev/null
    wait "$guardian" 2>/dev/null
    # Neither what the tool put into the background may stay.
    if kill_run "$run" "$child"; then rm -f "$LEASE/run-$run"; fi
    reason="done"
    if [ -s "$dir/why" ]; then read -r reason <"$dir/why"; fi
    size_of "$dir/stdout"
    printf 'ended\nstatus=%s\nreason=%s\ncenti=%s\nboot=%s\n' "$status" "$reason" "$lasted" "$boot" >"$dir/.status"
    mv -f "$dir/.status" "$dir/status"
}

guard() { # ends the run for a reason; only builtins but for its sleep, as it runs beside a measurement
    tick
    deadline=$((now + $2)) seen=$now beat='' previous='' turns=0 ends=0
    while :; do
        nap "$4"
        tick
        turns=$((turns + 1))
        { read -r beat <"$dir/beat"; } 2>/dev/null
        if [ "$beat" != "$previous" ]; then previous=$beat seen=$now; fi
        why=
        [ "$now" -lt "$deadline" ] || why=timeout
        [ $((now - seen)) -lt "$3" ] || why=orphan
        [ ! -e "$dir/cancel" ] || why=cancelled
        if [ -n "$token" ]; then
            lease_last
            lease_read "$last"
            lease_alive && [ "$l_token" = "$token" ] || why=lease
        fi
        if [ "$5" -gt 0 ] && [ $((turns % 8)) -eq 0 ]; then
            size_of "$dir/stdout"
            total=$size
            size_of "$dir/stderr"
            [ $(((total + size) / 1024)) -lt "$5" ] || why=output
        fi
        [ -n "$why" ] || continue
        [ -s "$dir/why" ] || echo "$why" >"$dir/why"
        kill_run "$run" "$child"
        # The watcher ends this loop. Where it goes on, the command had not got so far yet that it could be seen;
        # where the watcher was killed, nobody keeps the command's number from becoming another's.
        ends=$((ends + 1))
        if [ "$ends" -ge 20 ] || ! kill -0 $$ 2>/dev/null; then return; fi
    done
}

cmd_beat() { # RUN or -, COUNTER, TOKEN or -, TTL: the client lives; and the lease is still its own, or `lost`
    read_boot
    if [ "$1" != - ] && [ -d "$WORK/runs/$1" ]; then
        echo "$2" >"$WORK/runs/$1/.beat" && mv -f "$WORK/runs/$1/.beat" "$WORK/runs/$1/beat"
    fi
    if [ "$3" = - ] || lease_renew "$3" "$4"; then echo held; else lease_tell lost; fi
}

emit() { # FILE OFFSET -> offset behind what was printed
    size_of "$1"
    offset=$2
    [ "$size" -gt "$offset" ] || return 0
    tail -c "+$((offset + 1))" "$1" | head -c $((size - offset)) && offset=$size
}

cmd_follow() { # RUN OUT ERR POLL: its output from those offsets until it has ended
    dir=$WORK/runs/$1 out=$2 err=$3
    read_boot
    while :; do
        finished=
        if [ -e "$dir/status" ] || ! is_watched; then finished=1; fi
        emit "$dir/stdout" "$out"
        out=$offset
        emit "$dir/stderr" "$err" >&2
        err=$offset
        [ -z "$finished" ] || return 0
        nap "$4"
    done
}

is_watched() { # the watcher of $dir lives
    { read -r child watcher run_boot <"$dir/pid"; } 2>/dev/null || return 1
    [ "$run_boot" = "$boot" ] && kill -0 "$watcher" 2>/dev/null
}

cmd_state() { # RUN
    dir=$WORK/runs/$1
    read_boot
    # Its watcher is on its way.
    [ ! -d "$dir/started" ] || await 15 "$dir/pid"
    if [ -e "$dir/status" ]; then
        cat "$dir/status"
    elif [ ! -e "$dir/pid" ]; then
        echo none
    elif is_watched; then
        echo running
    else
        # The last thing that a watcher does is to write it.
        if [ -e "$dir/status" ]; then cat "$dir/status"; else printf 'gone\nboot=%s\n' "$run_boot"; fi
    fi
    size_of "$dir/stdout"
    echo "stdout=$size"
    size_of "$dir/stderr"
    printf 'stderr=%s\nboot_now=%s\n' "$size" "$boot"
}

cmd_kill() { # RUN: ends it, and tells when nothing of it lives
    dir=$WORK/runs/$1
    [ -d "$dir" ] || { echo none; return; }
    touch "$dir/cancel"
    [ -e "$dir/why" ] || echo cancelled >"$dir/why"
    read_boot
    if { read -r child watcher run_boot <"$dir/pid"; } 2>/dev/null && [ "$run_boot" = "$boot" ] &&
        [ ! -e "$dir/status" ]; then # what has ended has no number any more
        kill_run "$1" "$child" || fault leftover "$1"
        for _ in 1 2 3; do
            if [ -e "$dir/status" ] || ! is_watched; then break; fi
            await 5 "$dir/status"
        done
    fi
    echo killed
}

cmd_drop() { # RUN: its folder, when it has ended
    if [ -e "$WORK/runs/$1/status" ] || [ ! -e "$WORK/runs/$1/pid" ]; then rm -rf "${WORK:?}/runs/$1"; fi
    echo dropped
}

# --- a shared or carried folder: no client calls us, a person starts us ---------------------------------------

cmd_once() { # RUN: run what was prepared, and tell its end where no exit status is seen (serial line, telnet)
    dir=$WORK/runs/$1
    [ -f "$dir/arguments" ] || fault no-run "$1"
    if mkdir "$dir/started" 2>/dev/null; then
        # A carried folder has no client that sends signs of life.
        # shellcheck disable=SC2046  # numbers
        set -- $(cat "$dir/arguments") ''
        [ "${KILN_SERVED:-}" ] || set -- "$1" "$2" 1000000000 "$4" "$5" "$6" ''
        (cmd_watch "$@")
    fi
    if { read -r _ && IFS='=' read -r _ status; } 2>/dev/null <"$dir/status"; then :; else status=255; fi
    printf 'kiln-end %s\n' "$status"
    return 0
}

cmd_serve() { # take jobs as they come, one after the other; a sign of life every second
    prepare
    mkdir -p "$WORK/queue"
    KILN_SERVED=1
    read_boot
    (while kill -0 $$ 2>/dev/null; do
        tick
        echo "$boot $centi" >"$WORK/.served" && mv -f "$WORK/.served" "$WORK/served"
        sleep 1
    done) &
    trap 'kill $! 2>/dev/null; exit 0' INT TERM
    echo "serving $WORK"
    while [ ! -e "$WORK/stop" ]; do
        for job in "$WORK"/queue/*; do
            [ -f "$job" ] || continue
            rm -f "$job"
            printf '%s ' "${job##*/}"
            cmd_once "${job##*/}"
        done
        nap 0.2
    done
}

# --- facts -------------------------------------------------------------------------------------------------

cmd_facts() {
    prepare
    read_boot
    tick
    printf 'facts\nmachine=%s\nkernel=%s\nclock=%s\nuptime=%s\nboot=%s\n' \
        "$(uname -m)" "$(uname -r)" "$(date +%s)" "$now" "$boot"
    free_of
    echo "free_kb=$free"
    { read -r load _ </proc/loadavg && echo "load=$load"; } 2>/dev/null
    grep -c '^processor' /proc/cpuinfo 2>/dev/null | sed 's/^/cores=/'
    sed -n 's/^MemAvailable: *\([0-9]*\) kB/memory_kb=\1/p' /proc/meminfo 2>/dev/null
    for tool in sha256sum busybox openssl python3 setsid; do have "$tool" && echo "has_$tool=1"; done
    return 0
}

case $COMMAND in
has | begin | receive | place | stat | hash | send | clean | lease_take | lease_free | lease_status | start | watch | \
    beat | follow | state | kill | drop | facts | once | serve) "cmd_$COMMAND" "$@" ;;
*) fault usage "$COMMAND" ;;
esac
