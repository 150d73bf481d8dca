/* The floor: what a container costs when nothing but its system calls is done.
 *
 *     floor fork|vfork|profile RUNS IN_FLIGHT WORKERS PROGRAMS STATE IMAGE...
 *
 * Executes the very programs that pysup's launchers execute (the format is described in runtime/program.py): prologue, clone,
 * the other calls, execve, reap, removal of the directories; from a mount namespace pruned in the same way. `fork` is the same
 * clone3 as the launcher's; `vfork` adds CLONE_VM and CLONE_VFORK, so that no page table is copied: the least a run can cost.
 * `profile` is `vfork` with a clock around every call, and prints a second line: the microseconds each took, per run.
 *
 * PROGRAMS is a file of records: u32 bytes of the program, u32 bytes of the directory's path, u64 clone flags; program; path.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <stdint.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

enum { MAGIC = 0x70737570, STACK = 64 << 10, CALLS_MAX = 4096 };
#define NARROW 0x80000000u

struct header {
    uint32_t magic, calls, prologue, data, pointers, descriptors, results, pad;
};
struct pair {
    uint32_t first, second;
};
struct call {
    int64_t number, arguments[6];
    uint8_t forgiven[4];
    uint32_t flags; /* bit 0: any result but zero is a failure */
};
struct record {
    uint32_t program_bytes, directory_bytes;
    uint64_t clone_flags;
};
struct run {
    const struct record *record;
    const struct header *program;
    const char *directory;
    int failure; /* our end of the pipe, -1 once it is read */
};
struct linked {
    char *memory;
    const struct header *header;
    const struct pair *results;
};

static struct run *runs;
static char **images;
static const char *state;
static int null, error, nothing, share_memory;
static uint32_t life = 1; /* stands for the word that tells whether the supervisor lives */
static double *spent; /* by call, when profiling */
static char stack[STACK] __attribute__((aligned(16)));
static char block[1 << 20] __attribute__((aligned(16)));

static void store(char *memory, uint32_t place, long value) {
    if (place & NARROW)
        *(int32_t *)(memory + (place & ~NARROW)) = (int32_t)value;
    else
        *(int64_t *)(memory + place) = value;
}

static struct linked link_program(const struct header *header, const int64_t *descriptors) {
    size_t size = header->calls * sizeof(struct call) + header->data;
    const uint32_t *pointers = (const uint32_t *)((const char *)(header + 1) + size);
    const struct pair *fds = (const struct pair *)(pointers + header->pointers);
    const struct pair *results = fds + header->descriptors;
    if (header->magic != MAGIC || size > sizeof block || header->calls > CALLS_MAX)
        die("not a program");
    memcpy(block, header + 1, size);
    for (uint32_t i = 0; i < header->pointers; i++)
        *(int64_t *)(block + pointers[i]) += (intptr_t)block;
    for (uint32_t i = 0; i < header->descriptors; i++)
        store(block, fds[i].first, descriptors[fds[i].second]);
    return (struct linked){block, header, results};
}

/* The calls [first, last); the index of the one that failed, or `last`. */
static uint32_t run_calls(const struct linked *linked, uint32_t first, uint32_t last) {
    const struct header *header = linked->header;
    for (uint32_t index = first; index < last; index++) {
        const struct call *call = (const struct call *)linked->memory + index;
        const int64_t *a = call->arguments;
        double begun = spent ? now() : 0;
        long result = syscall(call->number, a[0], a[1], a[2], a[3], a[4], a[5]);
        if (spent)
            spent[index] += now() - begun;
        if (result < 0 && !memchr(call->forgiven, errno, sizeof call->forgiven))
            return index;
        if (result > 0 && call->flags & 1) {
            errno = ESRCH;
            return index;
        }
        for (uint32_t i = 0; i < header->results; i++)
            if (linked->results[i].first == index)
                store(linked->memory, linked->results[i].second, result);
    }
    return last;
}

struct report {
    uint32_t call;
    int error;
};
struct child {
    struct linked linked;
    struct report report; /* where memory is shared */
    int failure;          /* else: a pipe, whose end of file is the execve */
};

static int child(void *argument) {
    struct child *own = argument;
    const struct header *header = own->linked.header;
    own->report = (struct report){run_calls(&own->linked, header->prologue, header->calls), errno};
    if (!share_memory && write(own->failure, &own->report, sizeof own->report) < 0)
        _exit(124);
    _exit(125);
}

static void check(struct report report) {
    if (report.error) {
        fprintf(stderr, "call %u: ", report.call);
        errno = report.error;
        die("child");
    }
}

static pid_t clone_child(struct child *own, uint64_t flags) {
    if (share_memory)
        return clone(child, stack + STACK, (int)(flags | CLONE_VM | CLONE_VFORK | SIGCHLD), own);
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD};
    long pid = syscall(SYS_clone3, &arguments, sizeof arguments);
    if (pid == 0)
        child(own);
    return (pid_t)pid;
}

static pid_t start(int number) {
    struct run *run = &runs[number];
    int failure[2] = {-1, -1};
    int64_t descriptors[] = {(intptr_t)&life, life, nothing, null, null, error};
    struct child own = {.linked = link_program(run->program, descriptors)};
    uint32_t failed = run_calls(&own.linked, 0, run->program->prologue);
    if (failed < run->program->prologue)
        die("prologue");
    if (!share_memory && pipe2(failure, O_CLOEXEC))
        die("pipe2");
    own.failure = failure[1];
    pid_t pid = clone_child(&own, run->record->clone_flags);
    if (pid < 0)
        die("clone");
    check(own.report);
    run->failure = failure[0];
    if (!share_memory)
        close(failure[1]);
    return pid;
}

static void started(int number) {
    struct run *run = &runs[number];
    struct report report = {0, 0};
    if (run->failure >= 0 && read(run->failure, &report, sizeof report) > 0)
        check(report);
    if (run->failure >= 0)
        close(run->failure);
    run->failure = -1;
}

static void finish(int number) {
    started(number);
    if (*runs[number].directory)
        remove_run(runs[number].directory);
}

static void make_directories(char *path) {
    for (char *slash = path + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = 0;
        mkdir(path, 0755);
    }
    mkdir(path, 0755);
}

static void become_root(const char *path) {
    if (chdir(path) || syscall(SYS_pivot_root, ".", ".") || umount2(".", MNT_DETACH) || chdir("/"))
        die(path);
}

/* As runtime/launcher.py: a mount namespace with an empty directory, of which those of the runs are copies. */
static void make_nothing(int ourselves) {
    unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    int own = openat(ourselves, "ns/mnt", O_RDONLY | O_CLOEXEC);
    if (unshare(CLONE_NEWNS) || mount("nothing", "/.scratch", "tmpfs", flags, "size=4k,nr_inodes=1,mode=555"))
        die("nothing");
    become_root("/.scratch");
    nothing = openat(ourselves, "ns/mnt", O_RDONLY | O_CLOEXEC);
    if (nothing < 0 || setns(own, CLONE_NEWNS))
        die("setns");
    close(own);
    close(ourselves);
}

/* As runtime/launcher.py: an empty tmpfs for a root, with nothing but images and state at their own paths. */
static void prepare(void) {
    int ourselves = open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC);
    int trees[16], count = 0;
    const char *paths[16];
    for (char **image = images; *image && count < 15; image++)
        paths[count++] = *image;
    paths[count++] = state;
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        die("unshare");
    for (int i = 0; i < count; i++)
        if ((trees[i] = open_tree(AT_FDCWD, paths[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)) < 0)
            die(paths[i]);
    if (mount("floor", state, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"))
        die(state);
    become_root(state);
    if (mkdir("/.scratch", 0700))
        die("/.scratch");
    for (int i = 0; i < count; i++) {
        char path[4096];
        snprintf(path, sizeof path, "%s", paths[i]);
        make_directories(path);
        if (move_mount(trees[i], "", AT_FDCWD, path, MOVE_MOUNT_F_EMPTY_PATH))
            die(path);
        close(trees[i]);
    }
    make_nothing(ourselves);
    umask(0);
}

static void load(const char *path, int count) {
    struct stat stat;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &stat))
        die(path);
    char *at = mmap(NULL, (size_t)stat.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0), *end = at + stat.st_size;
    close(fd);
    runs = calloc((size_t)count, sizeof *runs);
    for (int i = 0; i < count && at < end; i++) {
        struct record *record = (struct record *)at;
        runs[i].record = record;
        runs[i].program = (struct header *)(record + 1);
        runs[i].directory = at + sizeof *record + record->program_bytes;
        at += sizeof *record + record->program_bytes + record->directory_bytes;
    }
}

static void print_spent(int count) {
    for (uint32_t call = 0; call < runs[0].program->calls; call++)
        printf("%s%.2f", call ? "," : "[", spent[call] / count * 1e6);
    puts("]");
}

int main(int argc, char **argv) {
    if (argc < 8) {
        fprintf(stderr, "usage: floor fork|vfork|profile RUNS IN_FLIGHT WORKERS PROGRAMS STATE IMAGE...\n");
        return 2;
    }
    share_memory = strcmp(argv[1], "fork");
    spent = strcmp(argv[1], "profile") ? NULL : shared(CALLS_MAX * sizeof *spent);
    struct pool pool = {atoi(argv[2]), atoi(argv[3]), atoi(argv[4]), prepare, start, started, finish};
    state = argv[6];
    images = argv + 7;
    null = open("/dev/null", O_RDWR | O_CLOEXEC);
    error = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, null + 1); /* dup3(2) refuses to copy a descriptor onto itself */
    if (null < 0 || error < 0)
        die("/dev/null");
    load(argv[5], pool.runs);
    int failed = run_pool(&pool);
    if (spent)
        print_spent(pool.runs);
    return failed;
}
