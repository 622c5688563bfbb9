import gearman_pool as gearman

import pickle

class PickleDataEncoder(gearman.DataEncoder):
    @classmethod
    def encode(cls, encodable_object):
        return pickle.dumps(encodable_object)

    @classmethod
    def decode(cls, decodable_string):
        return pickle.loads(decodable_string)

class LoggingPickleExampleClient(gearman.GearmanClient):
    data_encoder = PickleDataEncoder

    def wait_until_jobs_completed(self, job_requests, timeout=None):
        self.log.info("Waiting for jobs to complete...")
        output_results = super(LoggingPickleExampleClient, self).wait_until_jobs_completed(job_requests, timeout=timeout)
        self.log.info("Finished waiting for jobs to complete...")
        return output_results
