/* libgearman's fastest way to submit many foreground jobs: batches of tasks, run together.
 *
 * Usage: run_tasks PORT SECONDS BATCH;  prints one line of JSON. */
#include <libgearman/gearman.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static unsigned long completed;

static gearman_return_t count(gearman_task_st *task)
{
    (void)task;
    completed++;
    return GEARMAN_SUCCESS;
}

static int run_batch(gearman_client_st *client, unsigned long batch)
{
    gearman_return_t result = GEARMAN_SUCCESS;
    for (unsigned long i = 0; i < batch; i++) {
        gearman_client_add_task(client, NULL, NULL, "echo", NULL, "hello", 5, &result);
        if (gearman_failed(result))
            break;
    }
    if (!gearman_failed(result))
        result = gearman_client_run_tasks(client);
    gearman_client_task_free_all(client);
    if (gearman_failed(result))
        fprintf(stderr, "libgearman: %s\n", gearman_client_error(client));
    return gearman_failed(result) ? -1 : 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    double seconds = atof(argv[2]);
    unsigned long batch = strtoul(argv[3], NULL, 10);
    gearman_client_st *client = gearman_client_create(NULL);
    if (!client || gearman_failed(gearman_client_add_server(client, "127.0.0.1", (in_port_t)atoi(argv[1]))))
        return 1;
    gearman_client_set_complete_fn(client, count);
    if (run_batch(client, batch) < 0) /* connects, and warms up */
        return 1;
    completed = 0;
    double start = now(), end = start;
    while (end - start < seconds) {
        if (run_batch(client, batch) < 0)
            return 1;
        end = now();
    }
    printf("{\"rate\": %.1f, \"jobs\": %lu, \"seconds\": %.3f}\n", (double)completed / (end - start), completed, end - start);
    gearman_client_free(client);
    return 0;
}
