# Usage: worker.pl HOST PORT
use strict;
use warnings;
use Gearman::Worker;
my ($host, $port) = @ARGV;
my $worker = Gearman::Worker->new;
$worker->job_servers("$host:$port");
$worker->register_function(reverse => sub { return scalar reverse $_[0]->arg });
$worker->register_function(fail => sub { return undef });
$worker->register_function(stream => sub {
    my $job = shift;
    for my $part (1 .. $job->arg) {
        $job->set_status($part, $job->arg);
    }
    return "done";
});
$worker->work while 1;
