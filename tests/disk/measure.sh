# sh measure.sh KIND MOUNT TEMPLATE IMAGE PROGRAM COMMAND...
# Mounts a filesystem of its own at MOUNT, copies TEMPLATE to MOUNT/hub, and runs each COMMAND (words for PROGRAM). Prints
# the free bytes before and after each, and what each prints. Ends with 77 where nothing can be mounted.
kind=$1 mount=$2 template=$3 image=$4 program=$5
shift 5
if [ "$kind" = tmpfs ]; then
    mount -t tmpfs -o size=64m mlxman-test "$mount" || exit 77
else
    command -v mkfs.ext4 >/dev/null || { echo "there is no mkfs.ext4" >&2; exit 77; }
    truncate -s 64M "$image" && mkfs.ext4 -q -F "$image" && mount -o loop "$image" "$mount" || exit 77
fi
free() {
    # What was written and not placed yet is counted first.
    sync -f "$mount"
    stat -f -c '%f %S' "$mount" | { read -r blocks size; echo $((blocks * size)); }
}
cp -a "$template" "$mount/hub" || exit 1
free
set -f
for words in "$@"; do
    said=$("$program" $words) || [ $? -eq 1 ] || exit 1
    echo "$said" | tr -d '\n'
    echo
    free
done
