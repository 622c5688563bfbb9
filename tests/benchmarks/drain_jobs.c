/* A libgearman worker that does queued jobs until it has done so many.
 *
 * Usage: drain_jobs PORT JOBS;  prints one line of JSON: the rate from the first job's start to the last one's. */
#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static unsigned long done;
static double start, end;

static gearman_return_t echo(gearman_job_st *job, void *context)
{
    (void)context;
    end = now();
    if (!done++)
        start = end;
    return gearman_job_send_complete(job, gearman_job_workload(job), gearman_job_workload_size(job));
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    unsigned long jobs = strtoul(argv[2], NULL, 10);
    gearman_worker_st *worker = gearman_worker_create(NULL);
    if (!worker || gearman_failed(gearman_worker_add_server(worker, "127.0.0.1", (in_port_t)atoi(argv[1]))))
        return 1;
    gearman_worker_define_function(worker, "echo", strlen("echo"), gearman_function_create(echo), 0, NULL);
    while (done < jobs)
        if (gearman_failed(gearman_worker_work(worker))) {
            fprintf(stderr, "libgearman: %s\n", gearman_worker_error(worker));
            return 1;
        }
    printf("{\"rate\": %.1f, \"jobs\": %lu, \"seconds\": %.3f}\n", (double)(done - 1) / (end - start), done, end - start);
    gearman_worker_free(worker);
    return 0;
}
