package vault

import (
	"fmt"
	"log/slog"
	"slices"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// allowed are the calls of a signer that listens already: those of Go's runtime, of
// files, and of connections that come to it. The kernel refuses all others: to open
// a socket, to start a program, to look into another process, to change the machine.
var allowed = []string{
	// memory, threads, time and signals
	"brk", "mmap", "mremap", "munmap", "mprotect", "madvise", "mincore", "mlockall", "membarrier",
	"futex", "rseq", "set_robust_list", "set_tid_address", "sched_yield", "sched_getaffinity", "gettid", "getpid",
	"exit", "exit_group", "restart_syscall", "arch_prctl", "getrandom",
	"nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday",
	"setitimer", "timer_create", "timer_settime", "timer_delete",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "tgkill",
	"getuid", "geteuid", "getgid", "getegid", "uname", "sysinfo",
	// files
	"openat", "close", "read", "write", "pread64", "pwrite64", "readv", "writev", "lseek",
	"fstat", "newfstatat", "statx", "lstat", "stat", "getdents64", "readlinkat", "fcntl", "flock", "dup", "dup3",
	"fsync", "fdatasync", "ftruncate", "fchmod", "renameat", "renameat2", "rename", "unlinkat", "unlink",
	// connections that come
	"accept", "accept4", "getsockopt", "setsockopt", "getsockname", "getpeername", "shutdown",
	"recvfrom", "recvmsg", "sendto", "sendmsg",
	"epoll_create1", "epoll_ctl", "epoll_wait", "epoll_pwait", "eventfd2", "pipe2", "poll", "ppoll",
}

// Harden closes what leads into this process and out of it, as far as the kernel
// knows how, once its socket listens: it leaves no core dump, nobody traces it, it
// gains no privileges, its memory is not swapped out, and it opens no socket and
// starts no program any more. It cannot be undone.
func Harden(log *slog.Logger) error {
	const op = "harden the signer"
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return cloudpal.E(op+": forbid core dumps", "", err)
	}
	// Not dumpable is not traceable either, and what is in /proc of it is root's.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return cloudpal.E(op+": forbid tracing", "", err)
	}
	if err := lockMemory(); err != nil {
		log.Warn("keys may be swapped to a disk: raise the limit of locked memory (LimitMEMLOCK=infinity), or use no swap", "err", err)
	}
	if err := filterCalls(); err != nil {
		return cloudpal.E(op+": filter system calls", "", err)
	}
	return nil
}

// lockMemory keeps all memory, present and future, out of swap. With a limit that
// it would meet one day, Go could get no more memory then: it is refused at once.
func lockMemory() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err
	}
	if limit.Cur != unix.RLIM_INFINITY && unix.Geteuid() != 0 {
		return fmt.Errorf("the limit is %d bytes", limit.Cur)
	}
	return unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
}

// filterCalls has the kernel refuse all other calls to all threads, and with them
// new privileges.
func filterCalls() error {
	known, err := arch.GetInfo("")
	if err != nil {
		return err
	}
	names := slices.DeleteFunc(slices.Clone(allowed), func(name string) bool {
		_, ok := known.SyscallNames[name] // the older ones are not everywhere
		return !ok
	})
	thread := seccomp.Condition{Argument: 0, Operation: seccomp.BitsSet, Value: unix.CLONE_THREAD}
	return seccomp.LoadFilter(seccomp.Filter{
		NoNewPrivs: true,
		Flag:       seccomp.FilterFlagTSync,
		Policy: seccomp.Policy{
			DefaultAction: seccomp.ActionErrno,
			Syscalls: []seccomp.SyscallGroup{{
				Action: seccomp.ActionAllow,
				Names:  names,
				// New threads, and no new processes.
				NamesWithCondtions: []seccomp.NameWithConditions{{Name: "clone", Conditions: []seccomp.Condition{thread}}},
			}, {
				// Its flags cannot be seen here: C libraries use clone where it is not there.
				Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS),
				Names:  []string{"clone3"},
			}},
		},
	})
}
