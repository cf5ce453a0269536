/* A few threads that wait for work. Knows nothing of what they do.
 *
 * The calling thread takes share 0. Without pthreads, or where threads cannot be started, it takes all of them. After a
 * fork the child has no workers any more, and starts its own. */
#include "engine.h"
#include <stdlib.h>

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

void lmc_pool_run(Pool *pool, void (*job)(void *, int), void *context, int n)
{
    (void)pool;
    for (int i = 0; i < n; i++)
        job(context, i);
}
#else
#include <pthread.h>
#include <unistd.h>

typedef struct {
    Pool *pool;
    int share;
    pthread_t thread;
} Worker;

/* One process's workers. */
typedef struct Crew {
    int n_worker, stop, pending, n;
    uint64_t turn; /* goes up by one with every job */
    void (*job)(void *, int);
    void *context;
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    Worker worker[MAX_THREADS];
} Crew;

struct Pool {
    int threads;
    pid_t owner;
    Crew *crew;
};

static void *work(void *argument)
{
    Worker *worker = argument;
    Crew *crew = worker->pool->crew;
    uint64_t turn = 0;
    pthread_mutex_lock(&crew->lock);
    for (;;) {
        while (crew->turn == turn && !crew->stop)
            pthread_cond_wait(&crew->start, &crew->lock);
        if (crew->stop)
            break;
        turn = crew->turn;
        if (worker->share >= crew->n)
            continue;
        pthread_mutex_unlock(&crew->lock);
        crew->job(crew->context, worker->share);
        pthread_mutex_lock(&crew->lock);
        if (--crew->pending == 0)
            pthread_cond_signal(&crew->done);
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static void crew_start(Pool *pool)
{
    Crew *crew = calloc(1, sizeof *crew);
    pool->owner = getpid();
    pool->crew = crew;
    if (crew == NULL)
        return;
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->start, NULL);
    pthread_cond_init(&crew->done, NULL);
    for (int i = 1; i < pool->threads; i++) {
        Worker *worker = &crew->worker[crew->n_worker];
        worker->pool = pool;
        worker->share = i;
        if (pthread_create(&worker->thread, NULL, work, worker) != 0)
            break;
        crew->n_worker++;
    }
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
        pthread_mutex_lock(&crew->lock);
        crew->stop = 1;
        pthread_cond_broadcast(&crew->start);
        pthread_mutex_unlock(&crew->lock);
        for (int i = 0; i < crew->n_worker; i++)
            pthread_join(crew->worker[i].thread, NULL);
        pthread_mutex_destroy(&crew->lock);
        pthread_cond_destroy(&crew->start);
        pthread_cond_destroy(&crew->done);
        free(crew);
    } /* else: another process's, whose locks may be held here for ever */
    free(pool);
}

void lmc_pool_run(Pool *pool, void (*job)(void *, int), void *context, int n)
{
    if (n > 1 && (pool->crew == NULL || pool->owner != getpid()))
        crew_start(pool);
    Crew *crew = n > 1 ? pool->crew : NULL;
    int helped = crew == NULL ? 0 : n - 1 < crew->n_worker ? n - 1 : crew->n_worker;
    if (helped) {
        pthread_mutex_lock(&crew->lock);
        crew->job = job;
        crew->context = context;
        crew->n = helped + 1;
        crew->pending = helped;
        crew->turn++;
        pthread_cond_broadcast(&crew->start);
        pthread_mutex_unlock(&crew->lock);
    }
    job(context, 0);
    for (int i = helped + 1; i < n; i++)
        job(context, i);
    if (helped) {
        pthread_mutex_lock(&crew->lock);
        while (crew->pending)
            pthread_cond_wait(&crew->done, &crew->lock);
        pthread_mutex_unlock(&crew->lock);
    }
}
#endif
