# Ends the processes and removes the folders of a program that is gone.
#
# Standard input brings a line each: "process PID", "ended PID", "folder PATH".
# It ends when the program that holds its other side ends, in any way: its last
# line, Ctrl-C, a crash, kill -9. Each process leads a group of its own.

processes=" "
folders=
while IFS= read -r line; do
  value=${line#* }
  case $line in
    "process "*) processes="$processes$value " ;;
    "ended "*)
      case $processes in
        *" $value "*)
          processes="${processes%% "$value" *} ${processes#* "$value" }" ;;
      esac ;;
    "folder /"*) folders="$folders$value
" ;;
  esac
done

# SIGINT is PostgreSQL's fast shutdown, after which no shared memory stays either.
for pid in $processes; do kill -INT "-$pid" 2>/dev/null; done
tries=0
while [ "$tries" -lt 100 ]; do
  living=
  for pid in $processes; do
    if kill -0 "-$pid" 2>/dev/null; then living="$living $pid"; fi
  done
  if [ -z "$living" ]; then break; fi
  if [ "$tries" -ge 50 ]; then
    for pid in $living; do kill -KILL "-$pid" 2>/dev/null; done
  fi
  tries=$((tries + 1))
  sleep 0.1
done

printf '%s' "$folders" | while IFS= read -r folder; do rm -rf -- "$folder"; done
