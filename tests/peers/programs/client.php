<?php
// Usage: client.php HOST PORT UNIQUE; prints one line of JSON: what became of jobs for "reverse", "fail", "raise",
// "stream" and "later", and of one for "slow" with the given unique.
[, $host, $port, $unique] = $argv;
$seen = ["data" => [], "status" => [], "warning" => [], "exception" => null, "failed" => 0];
$client = new GearmanClient();
$client->addServer($host, (int) $port);
$client->enableExceptionHandler();
$client->setTimeout(20000);
$out = ["reverse" => $client->doNormal("reverse", "Hello World!")];
$out["high"] = $client->doHigh("reverse", "high");
$client->setDataCallback(function ($task) use (&$seen) { $seen["data"][] = $task->data(); });
$client->setStatusCallback(function ($task) use (&$seen) {
    $seen["status"][] = [$task->taskNumerator(), $task->taskDenominator()];
});
$client->setWarningCallback(function ($task) use (&$seen) { $seen["warning"][] = $task->data(); });
$client->setExceptionCallback(function ($task) use (&$seen) { $seen["exception"] = $task->data(); });
$client->setFailCallback(function ($task) use (&$seen) { $seen["failed"]++; });
$client->setCompleteCallback(function ($task) use (&$seen) { $seen["complete"][] = $task->data(); });
$client->addTask("stream", "3");
$client->runTasks();
$client->addTask("fail", "data");
$client->runTasks();
$client->addTask("raise", "why");
$client->runTasks();
$client->clearCallbacks();
$handle = $client->doBackground("later", "left");
$out["handle"] = $handle;
$out["known"] = $client->jobStatus($handle)[0];
$out["slow"] = $client->doNormal("slow", "same", $unique);
echo json_encode($out + $seen), "\n";
