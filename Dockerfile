# One image for each service: docker build --build-arg SERVICE=bridge|consumer|reader|simulator .
FROM node:24-alpine AS manifests
WORKDIR /app
COPY package.json package-lock.json ./
COPY shared/package.json shared/
COPY bridge/package.json bridge/
COPY consumer/package.json consumer/
COPY reader/package.json reader/
COPY simulator/package.json simulator/
COPY stack/package.json stack/
COPY e2e/package.json e2e/
COPY bench/package.json bench/

FROM manifests AS build
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.base.json ./
COPY shared shared
ARG SERVICE
COPY ${SERVICE} ${SERVICE}
RUN npx tsc -b shared ${SERVICE} && npm run page --if-present -w ${SERVICE}

FROM manifests AS production
ARG SERVICE
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund -w shared -w ${SERVICE}

FROM node:24-alpine
ARG SERVICE
WORKDIR /app
ENV NODE_ENV=production SERVICE=${SERVICE}
COPY --from=production /app/node_modules node_modules
COPY --from=build /app/shared/package.json shared/
COPY --from=build /app/shared/dist shared/dist
COPY --from=build /app/${SERVICE}/package.json ${SERVICE}/
COPY --from=build /app/${SERVICE}/dist ${SERVICE}/dist
# what only builds need is not there to be used by anybody
RUN rm -rf /usr/local/lib/node_modules /usr/local/bin/npm /usr/local/bin/npx /usr/local/bin/corepack /opt/yarn* \
  /usr/local/bin/yarn /usr/local/bin/yarnpkg \
  && mkdir /data && chown node:node /data
USER node
# exec, so that the service is process 1 and gets the signals itself
ENTRYPOINT ["/bin/sh", "-c", "exec node --max-semi-space-size=64 ${SERVICE}/dist/main.js \"$@\"", "node"]
