# The host `store`: a bare host with an S3 server (SeaweedFS) as a systemd service.
ARG BASE
FROM ${BASE}

COPY weed /usr/local/bin/weed
COPY seaweedfs.service /etc/systemd/system/seaweedfs.service
RUN chmod 0755 /usr/local/bin/weed \
 && useradd --system --uid 8333 --user-group --home-dir /var/lib/seaweedfs --shell /usr/sbin/nologin seaweedfs \
 && install -d /etc/seaweedfs \
 && systemctl enable seaweedfs.service
