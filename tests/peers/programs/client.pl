# Usage: client.pl HOST PORT UNIQUE; prints one line of JSON, as client.php does.
use strict;
use warnings;
use Gearman::Client;
use JSON::PP;
my ($host, $port, $unique) = @ARGV;
my $client = Gearman::Client->new(job_servers => ["$host:$port"], exceptions => 1);
my %seen = (status => [], data => [], exception => undef, failed => 0);
my $reversed = $client->do_task("reverse", "Hello World!", {timeout => 20});
my $high = $client->do_task("reverse", "high", {timeout => 20, priority => "high"});
my $complete = $client->do_task("stream", "3", {
    timeout => 20,
    on_status => sub { push @{$seen{status}}, [$_[0] + 0, $_[1] + 0] },
    on_data => sub { my $data = shift; push @{$seen{data}}, ref $data ? $$data : $data },
});
$client->do_task("fail", "", {timeout => 20, on_fail => sub { $seen{failed}++ }});
$client->do_task("raise", "why", {timeout => 20, on_exception => sub { $seen{exception} = $_[0] }});
my $handle = $client->dispatch_background("later", "left", {uniq => "perl-$unique"});
my $known = $client->get_status($handle)->known ? JSON::PP::true : JSON::PP::false;
my $slow = $client->do_task("slow", "same", {timeout => 20, uniq => $unique});
$handle =~ s{.*//}{};
print encode_json({
    reverse => $$reversed, high => $$high, complete => [$$complete], handle => $handle, known => $known,
    slow => $slow ? $$slow : undef, %seen,
}), "\n";
