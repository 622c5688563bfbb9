import gearman_pool as gearman

gm_admin_client = gearman.GearmanAdminClient(['localhost:4730'])

status_response = gm_admin_client.get_status()
version_response = gm_admin_client.get_version()
workers_response = gm_admin_client.get_workers()
