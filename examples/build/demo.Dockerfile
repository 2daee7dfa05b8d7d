# Two stages: the first runs a command, the second takes what that made and leaves the rest behind.
FROM scratch AS maker
COPY root/ /
ARG GREETING="hello from a RUN"
RUN ["/program", "-greet", "/greeting"]

FROM scratch
COPY --from=maker /greeting /etc/
LABEL org.opencontainers.image.title="demonstration"
