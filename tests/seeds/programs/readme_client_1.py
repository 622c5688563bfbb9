import gearman_pool as gearman


def check_request_status(job_request):
    if job_request.complete:
        print("Job %s finished!  Result: %s - %s" % (job_request.job.unique, job_request.state, job_request.result))
    elif job_request.timed_out:
        print("Job %s timed out!" % job_request.unique)
    elif job_request.connection_failed:
        print("Job %s connection failed!" % job_request.unique)


gm_client = gearman.GearmanClient(['localhost:4730', 'otherhost:4730'])

# See gearman/job.py to see attributes on the GearmanJobRequest
# Defaults to PRIORITY_NONE, background=False (synchronous task), wait_until_complete=False
completed_job_request = gm_client.submit_job("task_name", "arbitrary binary data", wait_until_complete=True)
check_request_status(completed_job_request)
