/* Two small programs for the measurement of a container's start, chosen by the first argument.
 *
 *   floor floor ROOTFS FILTER CGROUP COMMAND    the least that a container of this kind can cost: the same namespaces,
 *                                               mounts and devices, pivot_root, a ready seccomp program, execve
 *   floor measure COMMAND [ARGUMENT]...         run a command to its end; print nanoseconds, those on a processor,
 *                                               KiB of peak memory, status
 *
 * The floor reads no config.json, keeps no state, checks nothing and serves one bundle only. It is no runtime. The
 * measuring is here because a new process inherits the peak memory of the one that it was copied from: this one is
 * small. Linked statically, so that the dynamic loader's time and memory are not counted. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void die(const char *what)
{
	perror(what);
	_exit(1);
}

#define MUST(call) ((call) < 0 ? die(#call) : (void)0)

static struct sock_filter filter[4096];
static struct sock_fprog program = { .filter = filter };

static void read_filter(const char *path)
{
	int file = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? -1 : read(file, filter, sizeof filter);
	if (length < 0)
		die(path);
	close(file);
	program.len = length / sizeof filter[0];
}

static void bring_loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING };
	int file = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	MUST(file);
	MUST(ioctl(file, SIOCSIFFLAGS, &request));
	close(file);
}

static void mount_all(const char *root)
{
	const unsigned long quiet = MS_NOSUID | MS_NOEXEC | MS_NODEV;

	MUST(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL));
	MUST(mount(root, root, NULL, MS_BIND | MS_REC, NULL));
	MUST(chdir(root));
	MUST(mount("proc", "proc", "proc", quiet, NULL));
	MUST(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"));
	MUST(mkdir("dev/pts", 0755));
	MUST(mkdir("dev/shm", 0755));
	MUST(mkdir("dev/mqueue", 0755));
	MUST(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620"));
	MUST(mount("shm", "dev/shm", "tmpfs", quiet, "mode=1777,size=65536k"));
	MUST(mount("mqueue", "dev/mqueue", "mqueue", quiet, NULL));
	MUST(mount("sysfs", "sys", "sysfs", quiet | MS_RDONLY, NULL));
	MUST(mount("cgroup", "sys/fs/cgroup", "cgroup2", quiet | MS_RDONLY, NULL));
}

static void make_devices(void)
{
	static const struct { const char *path; int major, minor; } devices[] = {
		{ "dev/null", 1, 3 }, { "dev/zero", 1, 5 }, { "dev/full", 1, 7 },
		{ "dev/random", 1, 8 }, { "dev/urandom", 1, 9 }, { "dev/tty", 5, 0 },
	};
	for (size_t i = 0; i < sizeof devices / sizeof devices[0]; i++)
		MUST(mknod(devices[i].path, S_IFCHR | 0666, makedev(devices[i].major, devices[i].minor)));
	MUST(symlink("/proc/self/fd", "dev/fd"));
	MUST(symlink("/proc/self/fd/0", "dev/stdin"));
	MUST(symlink("/proc/self/fd/1", "dev/stdout"));
	MUST(symlink("/proc/self/fd/2", "dev/stderr"));
	MUST(symlink("pts/ptmx", "dev/ptmx"));
}

static void cover(void)
{
	/* The lists that the driver writes into config.json. What a host lacks is passed over, as runtimes do. */
	static const char *const masked[] = {
		"proc/acpi", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/timer_list", "proc/timer_stats",
		"proc/sched_debug", "proc/scsi", "sys/firmware", "sys/fs/selinux", "sys/dev/block",
	};
	static const char *const readonly[] = { "proc/asound", "proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger" };
	for (size_t i = 0; i < sizeof masked / sizeof masked[0]; i++) {
		if (!mount("dev/null", masked[i], NULL, MS_BIND, NULL))
			continue;
		if (errno == ENOTDIR)
			MUST(mount("tmpfs", masked[i], "tmpfs", MS_RDONLY, NULL));
		else if (errno != ENOENT)
			die(masked[i]);
	}
	for (size_t i = 0; i < sizeof readonly / sizeof readonly[0]; i++) {
		if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL)) {
			if (errno == ENOENT)
				continue;
			die(readonly[i]);
		}
		MUST(mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL));
	}
}

static void contain(const char *root, char *const command[])
{
	char *const environment[] = { "PATH=/bin", NULL };

	MUST(setsid());
	MUST(unshare(CLONE_NEWCGROUP));
	bring_loopback_up();
	mount_all(root);
	make_devices();
	MUST(sethostname("bench", 5));
	cover();
	MUST(syscall(SYS_pivot_root, ".", "."));
	MUST(umount2(".", MNT_DETACH));
	MUST(chdir("/"));
	MUST(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	MUST(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
	execve(command[0], command, environment);
	die(command[0]);
}

static int run_floor(const char *root, const char *filter_path, const char *cgroup, char *const command[])
{
	struct clone_args arguments = { 0 };
	int status;
	pid_t pid;

	read_filter(filter_path);
	MUST(mkdir(cgroup, 0755));
	int directory = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	MUST(directory);
	arguments.flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_INTO_CGROUP;
	arguments.exit_signal = SIGCHLD;
	arguments.cgroup = directory;
	pid = syscall(SYS_clone3, &arguments, sizeof arguments);
	MUST(pid);
	if (pid == 0)
		contain(root, command);
	MUST(waitpid(pid, &status, 0));
	while (rmdir(cgroup) && errno == EBUSY)
		usleep(100);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static int measure(char *const command[])
{
	struct timespec begin, end;
	struct rusage usage;
	int status;
	pid_t pid;

	clock_gettime(CLOCK_MONOTONIC, &begin);
	pid = fork();
	MUST(pid);
	if (pid == 0) {
		execvp(command[0], command);
		die(command[0]);
	}
	MUST(wait4(pid, &status, 0, &usage));
	clock_gettime(CLOCK_MONOTONIC, &end);
	printf("%lld %lld %ld %d\n", (end.tv_sec - begin.tv_sec) * 1000000000LL + end.tv_nsec - begin.tv_nsec,
	       (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000000LL
		       + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1000LL,
	       usage.ru_maxrss, WIFEXITED(status) ? WEXITSTATUS(status) : 255);
	return 0;
}

int main(int count, char *words[])
{
	if (count >= 6 && !strcmp(words[1], "floor"))
		return run_floor(words[2], words[3], words[4], words + 5);
	if (count >= 3 && !strcmp(words[1], "measure"))
		return measure(words + 2);
	fputs("usage: floor floor ROOTFS FILTER CGROUP COMMAND | floor measure COMMAND\n", stderr);
	return 2;
}
