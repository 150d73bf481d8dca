/* Keep a number of runs in flight until all have ended, and say what it cost.
 *
 * The runs are dealt to worker processes, each with one thread. A worker prepares itself, waits for the others, and then
 * starts its runs, reaps them and cleans up after them. Times are CLOCK_MONOTONIC; the result is one JSON object on standard
 * output. Whatever fails ends the whole measurement with a message: a wrong figure is worse than none.
 */
#ifndef POOL_H
#define POOL_H

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct pool {
    int runs, in_flight, workers;
    void (*prepare)(void);    /* once in each worker, before the clock starts */
    pid_t (*start)(int run);  /* returns the process to reap */
    void (*started)(int run); /* waits for execve, where that can be seen; called when one run is in flight */
    void (*finish)(int run);  /* after the reap: remove what the run left */
};

struct stamps {
    double start, executed, reaped;
};

struct worker {
    double cpu, end;
};

static inline void die(const char *what) {
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static inline double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

static inline double seconds(struct timeval t) { return t.tv_sec + t.tv_usec / 1e6; }

/* Processor time of this process and of all it has reaped, in seconds. */
static inline double own_cpu(void) {
    struct rusage self, children;
    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &children);
    return seconds(self.ru_utime) + seconds(self.ru_stime) + seconds(children.ru_utime) + seconds(children.ru_stime);
}

/* Time that any processor of the machine was not idle, in seconds: proc_stat(5). */
static inline double machine_busy(void) {
    unsigned long long t[8] = {0};
    FILE *stat = fopen("/proc/stat", "r");
    if (!stat || fscanf(stat, "cpu %llu %llu %llu %llu %llu %llu %llu %llu", &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]) != 8)
        die("/proc/stat");
    fclose(stat);
    return (double)(t[0] + t[1] + t[2] + t[5] + t[6] + t[7]) / (double)sysconf(_SC_CLK_TCK); /* all but idle, iowait */
}

static inline void *shared(size_t bytes) {
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        die("mmap");
    return memory;
}

static inline int reap(const pid_t *live, int share) {
    int status, slot = 0;
    pid_t pid = wait(&status);
    if (pid < 0)
        die("wait");
    if (!WIFEXITED(status) || WEXITSTATUS(status)) {
        fprintf(stderr, "a run ended with wait status %#x\n", (unsigned)status);
        exit(1);
    }
    while (slot < share && live[slot] != pid)
        slot++;
    return slot;
}

static inline void work(const struct pool *pool, int first, int share, struct stamps *stamps) {
    pid_t *live = calloc((size_t)share, sizeof *live);
    int *run_of = calloc((size_t)share, sizeof *run_of);
    int next = first, flying = 0;
    while (next < pool->runs || flying) {
        for (int slot = 0; slot < share && next < pool->runs; slot++) {
            if (live[slot])
                continue;
            stamps[next].start = now();
            live[slot] = pool->start(next);
            if (pool->in_flight == 1 && pool->started) {
                pool->started(next);
                stamps[next].executed = now();
            }
            run_of[slot] = next;
            next += pool->workers;
            flying++;
        }
        int slot = reap(live, share);
        stamps[run_of[slot]].reaped = now();
        pool->finish(run_of[slot]);
        live[slot] = 0;
        flying--;
    }
}

static inline void print_list(const char *name, const struct stamps *stamps, int runs, int executed) {
    printf(",\"%s\":[", name);
    for (int run = 0; run < runs; run++)
        printf("%s%.1f", run ? "," : "", ((executed ? stamps[run].executed : stamps[run].reaped) - stamps[run].start) * 1e6);
    printf("]");
}

static inline int run_pool(struct pool *pool) {
    struct stamps *stamps = shared(sizeof *stamps * (size_t)pool->runs);
    struct worker *workers = shared(sizeof *workers * (size_t)pool->workers);
    int ready[2], go[2];
    char byte = 0;
    if (pool->workers > pool->in_flight)
        pool->workers = pool->in_flight;
    if (pipe(ready) || pipe(go))
        die("pipe");
    for (int index = 0; index < pool->workers; index++) {
        pid_t pid = fork();
        if (pid < 0)
            die("fork");
        if (pid)
            continue;
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        close(go[1]);
        pool->prepare();
        if (write(ready[1], &byte, 1) != 1 || read(go[0], &byte, 1) != 0)
            die("barrier");
        double cpu = own_cpu();
        work(pool, index, (pool->in_flight + index) / pool->workers, stamps);
        workers[index] = (struct worker){own_cpu() - cpu, now()};
        _exit(0);
    }
    for (int index = 0; index < pool->workers; index++)
        if (read(ready[0], &byte, 1) != 1)
            die("a worker's preparation");
    double busy = machine_busy(), start = now(), end = start, cpu = 0;
    close(go[1]);
    for (int index = 0, status; index < pool->workers; index++)
        if (wait(&status) < 0 || status)
            return 1;
    busy = machine_busy() - busy;
    for (int index = 0; index < pool->workers; index++) {
        cpu += workers[index].cpu;
        end = workers[index].end > end ? workers[index].end : end;
    }
    printf("{\"runs\":%d,\"wall_s\":%.6f,\"cpu_s\":%.6f,\"busy_s\":%.6f", pool->runs, end - start, cpu, busy);
    print_list("exit_us", stamps, pool->runs, 0);
    if (pool->in_flight == 1 && pool->started)
        print_list("exec_us", stamps, pool->runs, 1);
    puts("}");
    return 0;
}

/* Remove what the overlay of a run that wrote nothing leaves: `dirty` marks a volatile mount, since Linux 5.10. */
static inline void remove_run(const char *directory) {
    static const char *const names[] = {"upper", "merged", "work/work/incompat/volatile/dirty", "work/work/incompat/volatile", "work/work/incompat", "work/work", "work", "."};
    char path[4096];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, *names[i] == '.' ? "%s" : "%s/%s", directory, names[i]);
        if ((i == 2 ? unlink(path) : rmdir(path)) && errno != ENOENT)
            die(path);
    }
}

#endif
