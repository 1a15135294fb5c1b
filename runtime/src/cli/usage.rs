//! The help text.

/// What `--help` prints.
pub const USAGE: &str = "\
usage: coracle-runtime [global options] COMMAND [options] ID [arguments]

  --root DIR                      where state is kept, by default /run/coracle/runtime
  --log FILE                      where messages go besides standard error
  --log-format text|json          their form
  --debug                         more of them
  --systemd-cgroup, --cgroup-manager cgroupfs|systemd|disabled

  run [-d|--detach] [--keep] ID   create a container and start it
  create ID                       set a container up
      -b|--bundle DIR, -f|--config FILE, --pid-file FILE, --console-socket SOCKET, --preserve-fds N, --no-new-keyring,
      --no-pivot
  start ID                        execute its command
  exec ID COMMAND ...             execute another command in it
      -p|--process FILE, --cwd DIR, -e|--env NAME=VALUE, -t|--tty, -u|--user UID[:GID], -g|--additional-gids GID,
      -d|--detach, --pid-file FILE, --console-socket SOCKET, -c|--cap NAME, --no-new-privs, --apparmor PROFILE,
      --process-label LABEL, --preserve-fds N, --ignore-paused, --cgroup PATH
  state ID                        print its state as JSON
  list [-f|--format table|json] [-q|--quiet]
                                  print all containers
  kill [-a|--all] ID [SIGNAL]     send a signal, by default TERM
  delete [-f|--force] ID          remove it; with --force kill it first
  ps [-f|--format table|json] ID [PS OPTIONS]
                                  print its processes
  pause ID, resume ID             freeze its processes, let them go on
  update ID                       change its limits
      -r|--resources FILE|-, --memory, --memory-reservation, --memory-swap BYTES, --cpu-quota, --cpu-period,
      --cpu-burst, --cpu-rt-runtime, --cpu-rt-period MICROSECONDS, --cpu-share, --cpu-idle, --pids-limit,
      --blkio-weight NUMBER, --cpuset-cpus, --cpuset-mems LIST, --l3-cache-schema, --mem-bw-schema SCHEMA
  events [--stats] [--interval DURATION] ID
                                  print what it uses as JSON lines
  features                        print what this runtime can do as JSON
  spec [-b|--bundle DIR] [--rootless]
                                  write a config.json to start from
";
