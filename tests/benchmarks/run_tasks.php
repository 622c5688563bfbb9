<?php
/* php-gearman, which stands on libgearman: one job at a time, or batches of tasks that are run together.
 *
 * Usage: run_tasks.php WORK PORT SECONDS BATCH, with WORK "alone" or "bulk"; prints one line of JSON. */
if (!class_exists('GearmanClient')) {
    fwrite(STDERR, "php has no gearman extension\n");
    exit(3);
}
[, $work, $port, $seconds, $batch] = $argv;
$client = new GearmanClient();
$client->addServer('127.0.0.1', (int) $port);

function check($data)
{
    if ($data !== 'hello') {
        fwrite(STDERR, "a job's result is not its payload\n");
        exit(1);
    }
}

if ($work === 'bulk') {
    $completed = 0;
    $client->setCompleteCallback(function ($task) use (&$completed) {
        check($task->data());
        $completed++;
    });
    $run = function () use ($client, $batch) {
        for ($i = 0; $i < $batch; $i++) {
            $client->addTask('echo', 'hello');
        }
        if (!$client->runTasks()) {
            fwrite(STDERR, $client->error() . "\n");
            exit(1);
        }
    };
    $run();
    $completed = 0;
    $start = $end = hrtime(true);
    while ($end - $start < $seconds * 1e9) {
        $run();
        $end = hrtime(true);
    }
    $took = ($end - $start) / 1e9;
    echo json_encode(['rate' => $completed / $took, 'jobs' => $completed, 'seconds' => $took]), "\n";
} else {
    for ($i = 0; $i < 20; $i++) {
        check($client->doNormal('echo', 'hello'));
    }
    $times = [];
    $end = hrtime(true) + $seconds * 1e9;
    while (($before = hrtime(true)) < $end) {
        check($client->doNormal('echo', 'hello'));
        $times[] = (hrtime(true) - $before) / 1e3;
    }
    sort($times);
    $count = count($times);
    echo json_encode(['p50' => $times[intdiv($count, 2)], 'p99' => $times[intdiv($count * 99, 100)], 'jobs' => $count]), "\n";
}
