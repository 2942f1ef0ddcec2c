# A bare Debian host: systemd, sshd and what any server has; nothing that a role should install.
ARG BASE
FROM ${BASE}

# Containers inherit labels; the lab's hosts carry the value 1 instead.
LABEL org.fluxhero.maintenance.lab=image

RUN apt-get update -q \
 && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
      systemd systemd-sysv dbus libpam-systemd python3 sudo iproute2 procps ca-certificates \
      openssh-server cron logrotate \
 && apt-get clean \
 && rm -rf /var/lib/apt/lists/*

# Background package updates would fight with the tests for the package lock.
RUN systemctl mask apt-daily.timer apt-daily-upgrade.timer \
 && systemctl set-default multi-user.target \
 && install -d -m 0700 /root/.ssh

# What systemd understands as an orderly shutdown.
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/init"]
