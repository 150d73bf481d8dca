/* Another runtime's containers, started as cheaply as a caller can start them.
 *
 *     peers RUNS IN_FLIGHT WORKERS disk|memory STATE IMAGE MERGED RUN COMMAND...
 *
 * For each run: directories for upper and work, a clone that copies no page table into a mount namespace of its own, the
 * overlay mounted at MERGED in there (so every container can share one configuration, and the kernel unmounts it at the end), and
 * COMMAND, the runtime in the foreground, in which an argument `@` becomes the run's number. RUN is where the runtime keeps its
 * files: a tmpfs, as /run is on most hosts. Nothing of it is seen in the host's mount namespace.
 */
#define _GNU_SOURCE
#include "pool.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

enum { STACK = 64 << 10, PATH = 4096 };

static const char *state, *merged, *run_directory;
static char **command;
static int in_memory;
static char options[2 * PATH];
static char stack[STACK] __attribute__((aligned(16)));

static void prepare(void) {
    int null = open("/dev/null", O_RDWR);
    if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
        die("unshare");
    umount2("/sys/fs/cgroup/unified", MNT_DETACH); /* crun refuses a hybrid hierarchy, even when it uses none */
    if (mount("bench", run_directory, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700"))
        die(run_directory);
    if (null < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(null, STDOUT_FILENO) < 0)
        die("/dev/null");
}

static void directory_of(int run, char *path) { snprintf(path, PATH, "%s/c%d", state, run); }

static void make_layers(void) {
    if (mkdir("upper", 0755) || mkdir("work", 0700))
        die("upper and work");
}

static void make_directories(int run) {
    char path[PATH];
    directory_of(run, path);
    if (mkdir(path, 0700) || chdir(path))
        die(path);
    make_layers();
}

/* In the memory of the worker, which waits until execve. */
static int child(void *argument) {
    char number[16], *argv[128];
    int count = 0;
    snprintf(number, sizeof number, "c%d", *(int *)argument);
    for (char **word = command; *word && count < 127; word++)
        argv[count++] = strcmp(*word, "@") ? *word : number;
    argv[count] = NULL;
    if (in_memory) {
        if (mount("tmpfs", state, "tmpfs", MS_NOSUID | MS_NODEV, "mode=700,size=16m") || chdir(state))
            die(state);
        make_layers();
    }
    if (mount("overlay", merged, "overlay", 0, options) || chdir("/"))
        die(merged);
    execv(argv[0], argv);
    die(argv[0]);
    return 1;
}

static pid_t start(int run) {
    if (!in_memory)
        make_directories(run);
    pid_t pid = clone(child, stack + STACK, CLONE_VM | CLONE_VFORK | CLONE_NEWNS | SIGCHLD, &run);
    if (pid < 0)
        die("clone");
    return pid;
}

static void finish(int run) {
    char path[PATH];
    if (in_memory)
        return;
    directory_of(run, path);
    if (chdir("/"))
        die("/");
    remove_run(path);
}

int main(int argc, char **argv) {
    if (argc < 10) {
        fprintf(stderr, "usage: peers RUNS IN_FLIGHT WORKERS disk|memory STATE IMAGE MERGED RUN COMMAND...\n");
        return 2;
    }
    struct pool pool = {atoi(argv[1]), atoi(argv[2]), atoi(argv[3]), prepare, start, NULL, finish};
    in_memory = !strcmp(argv[4], "memory");
    state = argv[5];
    merged = argv[7];
    run_directory = argv[8];
    command = argv + 9;
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=upper,workdir=work,volatile", argv[6]);
    return run_pool(&pool);
}
