"""With clients and workers of others on the same server: libgearman's tools, PHP, Perl, pygearman and gear."""
