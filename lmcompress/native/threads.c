/* A few threads that share the parts of one job after another. Knows nothing of what they do.
 *
 * The parts of a job lie in one range for each thread, which begins with its own and then takes over those of others. So a
 * thread meets the same parts of the same jobs again, and finds what they read in its cache; and one that is late, asleep, or
 * without a processor holds up nobody, unless in the middle of a part. A job is a matter of microseconds: whoever waits looks
 * again and again for a while, and only then sleeps.
 *
 * Without pthreads, or where threads cannot be started, the caller does everything. After a fork the child has no workers
 * any more, and starts its own. */
#include "engine.h"
#include <stdlib.h>
#include <time.h>

int64_t lmc_now(void)
{
    struct timespec t;
#ifdef _WIN32
    timespec_get(&t, TIME_UTC);
#else
    clock_gettime(CLOCK_MONOTONIC, &t);
#endif
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

#ifdef _WIN32
struct Pool {
    int threads;
};

Pool *lmc_pool_new(int threads)
{
    Pool *pool = malloc(sizeof *pool);
    if (pool)
        pool->threads = threads;
    return pool;
}

void lmc_pool_free(Pool *pool) { free(pool); }

int lmc_pool_ready(Pool *pool)
{
    (void)pool;
    return 1;
}

void lmc_pool_run(Pool *pool, void (*job)(const void *, int), const void *context, int n)
{
    (void)pool;
    for (int part = 0; part < n; part++)
        job(context, part);
}
#else
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

#define LOOKS 32        /* at a value before the clock is looked at */
#define SPIN 20000      /* nanoseconds of looking before others are let run in between */
#define PATIENCE 300000 /* nanoseconds before one that waits sleeps: more than lie between two steps of decoding */
#define LINE 64         /* bytes that move between processors together */
#define PART_BITS 16    /* of a job's word: the number of its parts */
#define PARTS(job) ((job) & ((1 << PART_BITS) - 1))

typedef struct Crew Crew;

typedef struct {
    _Alignas(LINE) atomic_uint_fast64_t taken; /* the job whose parts they are << PART_BITS | how many of this range */
    Crew *crew;
    int index; /* 0: who calls lmc_pool_run */
    pthread_t thread;
} Member;

/* One process's threads. */
struct Crew {
    _Alignas(LINE) atomic_uint_fast64_t job; /* its number, from 1 on << PART_BITS | its parts; no parts: the end */
    void (*work)(const void *, int); /* these two change only while no part is waiting or under way */
    const void *context;
    _Alignas(LINE) atomic_uint_fast64_t finished; /* parts of this job that others than the caller have done */
    _Alignas(LINE) atomic_int asleep, waiting; /* some worker; the caller */
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    int n_member;
    Member member[];
};

struct Pool {
    int threads;
    pid_t owner;
    Crew *crew;
};

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Whether it comes true, before patience ends, that a value is (or, for equal = 0, is no longer) x. */
static int becomes(atomic_uint_fast64_t *value, uint64_t x, int equal)
{
    for (int64_t start = 0, time;;) {
        for (int i = 0; i < LOOKS; i++) {
            if ((atomic_load_explicit(value, memory_order_acquire) == x) == equal)
                return 1;
            relax();
        }
        time = lmc_now();
        start = start ? start : time;
        if (time - start > PATIENCE)
            return 0;
        if (time - start > SPIN)
            sched_yield();
    }
}

/* The next part of a member's range of a job, or -1. */
static int claim(Crew *crew, uint64_t job, int owner)
{
    uint64_t number = job >> PART_BITS, n = PARTS(job);
    uint64_t first = n * owner / crew->n_member, end = n * (owner + 1) / crew->n_member, next;
    uint64_t seen = atomic_load_explicit(&crew->member[owner].taken, memory_order_relaxed);
    do {
        if (seen >> PART_BITS > number) /* the caller has gone on */
            return -1;
        next = seen >> PART_BITS < number ? first : PARTS(seen);
        if (next == end)
            return -1;
    } while (!atomic_compare_exchange_weak_explicit(&crew->member[owner].taken, &seen, number << PART_BITS | (next + 1),
                                                    memory_order_acq_rel, memory_order_relaxed));
    return (int)next;
}

/* All parts of a member's range that are left; how many that was. */
static int take_parts(Crew *crew, uint64_t job, int owner)
{
    int count = 0;
    for (int part; (part = claim(crew, job, owner)) >= 0; count++)
        crew->work(crew->context, part);
    return count;
}

/* A worker's own parts of a job, then those of others. */
static void help(Crew *crew, uint64_t job, int index)
{
    for (int i = 0; i < crew->n_member; i++) {
        int count = take_parts(crew, job, (index + i) % crew->n_member);
        if (count) {
            atomic_fetch_add(&crew->finished, count);
            if (atomic_load(&crew->waiting)) {
                pthread_mutex_lock(&crew->lock);
                pthread_cond_signal(&crew->done);
                pthread_mutex_unlock(&crew->lock);
            }
        }
    }
}

static void *work(void *argument)
{
    Member *self = argument;
    Crew *crew = self->crew;
    uint64_t job = 0;
    for (;;) {
        if (!becomes(&crew->job, job, 0)) {
            pthread_mutex_lock(&crew->lock);
            for (;;) {
                atomic_store(&crew->asleep, 1); /* whoever changes the job after this line sees it */
                if (atomic_load(&crew->job) != job)
                    break;
                pthread_cond_wait(&crew->start, &crew->lock);
            }
            pthread_mutex_unlock(&crew->lock);
        }
        job = atomic_load(&crew->job);
        if (PARTS(job) == 0)
            return NULL;
        help(crew, job, self->index);
    }
}

static uint64_t post(Crew *crew, int n)
{
    uint64_t job = ((atomic_load_explicit(&crew->job, memory_order_relaxed) >> PART_BITS) + 1) << PART_BITS | n;
    atomic_store(&crew->job, job);
    if (atomic_load(&crew->asleep)) {
        pthread_mutex_lock(&crew->lock);
        atomic_store(&crew->asleep, 0);
        pthread_cond_broadcast(&crew->start);
        pthread_mutex_unlock(&crew->lock);
    }
    return job;
}

static Crew *crew_new(int threads)
{
    Crew *crew = lmc_alloc(sizeof *crew + threads * sizeof *crew->member);
    if (crew == NULL)
        return NULL;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->start, NULL);
    pthread_cond_init(&crew->done, NULL);
    for (crew->n_member = 1; crew->n_member < threads; crew->n_member++) {
        Member *member = &crew->member[crew->n_member];
        member->crew = crew;
        member->index = crew->n_member;
        if (pthread_create(&member->thread, NULL, work, member) != 0)
            break;
    }
    return crew;
}

Pool *lmc_pool_new(int threads)
{
    Pool *pool = calloc(1, sizeof *pool);
    if (pool)
        pool->threads = threads;
    return pool;
}

void lmc_pool_free(Pool *pool)
{
    if (pool == NULL)
        return;
    Crew *crew = pool->crew;
    if (crew != NULL && pool->owner == getpid()) {
        post(crew, 0);
        for (int i = 1; i < crew->n_member; i++)
            pthread_join(crew->member[i].thread, NULL);
        pthread_mutex_destroy(&crew->lock);
        pthread_cond_destroy(&crew->start);
        pthread_cond_destroy(&crew->done);
        lmc_free(crew);
    } /* else: another process's, whose locks may be held here for ever */
    free(pool);
}

int lmc_pool_ready(Pool *pool)
{
    if (pool->threads > 1 && (pool->crew == NULL || pool->owner != getpid())) {
        pool->owner = getpid();
        pool->crew = crew_new(pool->threads);
    }
    return pool->crew == NULL ? 1 : pool->crew->n_member;
}

void lmc_pool_run(Pool *pool, void (*job)(const void *, int), const void *context, int n)
{
    Crew *crew = pool->crew;
    if (n <= 1 || crew == NULL || crew->n_member == 1) {
        for (int part = 0; part < n; part++)
            job(context, part);
        return;
    }
    crew->work = job;
    crew->context = context;
    atomic_store_explicit(&crew->finished, 0, memory_order_relaxed);
    uint64_t number = post(crew, n), others = n;
    for (int i = 0; i < crew->n_member; i++)
        others -= take_parts(crew, number, i);
    if (!becomes(&crew->finished, others, 1)) {
        pthread_mutex_lock(&crew->lock);
        atomic_store(&crew->waiting, 1); /* whoever finishes after this line sees it */
        while (atomic_load(&crew->finished) != others)
            pthread_cond_wait(&crew->done, &crew->lock);
        atomic_store(&crew->waiting, 0);
        pthread_mutex_unlock(&crew->lock);
    }
}
#endif
